"""Training from a node's own copy of the store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import losses

from xr2ct.config import Data
from xr2ct.errors import Stopped
from xr2ct.store import Store
from xr2ct.training.distributed import Ranks
from xr2ct.training.staging import on_this_node
from xr2ct.training.stopping import Listener

ONE = Ranks(0, 1, 0, torch.device("cpu"))


def test_without_a_local_disk_the_store_itself_is_read(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XR2CT_STAGE", raising=False)
    store = Store.open(stores / "lidc-idri.zarr")
    assert on_this_node(store, store.cases, Data(size=16), ONE, Listener()) is store


def test_asked_to_stop_while_copying(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XR2CT_STAGE", str(tmp_path))
    store, listener = Store.open(stores / "lidc-idri.zarr"), Listener()
    listener(15, None)
    with pytest.raises(Stopped, match="as SIGTERM asked; nothing is lost"):
        on_this_node(store, store.cases, Data(size=16), ONE, listener)
    assert not list(tmp_path.glob("*/COMPLETE"))
    assert on_this_node(store, store.cases, Data(size=16), ONE, Listener()).path.parent == tmp_path


@pytest.mark.slow
def test_losses_are_those_of_the_shared_store(trainer: Any, stores: Path, tmp_path: Path) -> None:
    training = {"steps": 4, "checkpoint_every": 2}
    trainer.finish(trainer.config("shared", training=training), ranks=2)
    shutil.copytree(stores, tmp_path / "stores")
    config = trainer.config("staged", training=training, data={"stores": str(tmp_path / "stores")})
    trainer.finish(config, ranks=2, XR2CT_STAGE=str(tmp_path / "local disk"))
    assert list((tmp_path / "local disk").glob("*/COMPLETE"))
    found, expected = (losses(trainer.run(name)) for name in ("staged", "shared"))
    assert found == expected
    resolved = [trainer.run(name).experiment().resolved for name in ("staged", "shared")]
    assert resolved[0].stores == resolved[1].stores
