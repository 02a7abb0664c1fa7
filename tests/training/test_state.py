"""What a checkpoint holds, and what must not become one."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xr2ct.config import Experiment
from xr2ct.errors import WorkFailed
from xr2ct.run import Run
from xr2ct.training import state
from xr2ct.training.distributed import Ranks
from xr2ct.training.fence import Fence
from xr2ct.training.state import TrainingState, seed_everything

ONE = Ranks(0, 1, 0, torch.device("cpu"))


def test_weights_broken_by_the_last_update_are_not_saved(tmp_path: Path) -> None:
    """The step's losses are those before the update, so only the weights show it."""
    healthy, broken = {"w": torch.ones(2), "n": torch.tensor(3)}, {"w": torch.tensor([1.0, torch.inf])}
    engines: dict[str, Any] = {
        "mapper": SimpleNamespace(consolidated_weights=lambda: healthy),
        "potential": SimpleNamespace(consolidated_weights=lambda: broken),
    }
    method: Any = None
    at_5 = TrainingState(
        Experiment(name="x"), method, engines, ONE, Fence(Run(tmp_path), 1), average=None, step=5
    )
    with pytest.raises(WorkFailed, match="step 5: weights of potential are no longer finite"):
        state.save(Run(tmp_path), at_5)
    assert not list(tmp_path.iterdir())


def test_a_full_disk(tmp_path: Path) -> None:
    def full(folder: Path, client_state: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    mapper = SimpleNamespace(consolidated_weights=lambda: {"w": torch.ones(2)}, save=full)
    nothing: Any = None
    engines: Any = {"mapper": mapper}
    at_5 = TrainingState(
        Experiment(name="x"), nothing, engines, ONE, Fence(Run(tmp_path), 1), average=None, step=5
    )
    with pytest.raises(WorkFailed, match=r"the checkpoint of step 5 is not written: .*No space left"):
        state.save(Run(tmp_path), at_5)
    assert Run(tmp_path).steps() == []


def test_whoever_may_read_a_run_may_read_its_weights(tmp_path: Path) -> None:
    mapper = SimpleNamespace(
        consolidated_weights=lambda: {"w": torch.ones(2)}, save=lambda folder, _: folder.mkdir(parents=True)
    )
    nothing: Any = SimpleNamespace(fixed={})
    engines: Any = {"mapper": mapper}
    average: Any = SimpleNamespace(weights={"w": torch.zeros(2)})
    at_5 = TrainingState(
        Experiment(name="x"), nothing, engines, ONE, Fence(Run(tmp_path), 1), average, step=5
    )
    (tmp_path / "plain").touch()
    state.save(Run(tmp_path), at_5)
    files = [Run(tmp_path).checkpoint(5) / name for name in ("mapper.safetensors", "mapper-ema.safetensors")]
    assert [oct(file.stat().st_mode) for file in files] == [oct((tmp_path / "plain").stat().st_mode)] * 2


def draws() -> tuple[Tensor, float, float]:
    return torch.rand(4), random.random(), float(np.random.normal())  # noqa: NPY002


def test_every_random_state_comes_back(tmp_path: Path) -> None:
    seed_everything(5)
    draws()  # normal() keeps the second of a pair for the next call
    torch.save(state._random_state(), tmp_path / "random.pt")
    expected = draws()
    draws()
    state._set_random_state(torch.load(tmp_path / "random.pt", weights_only=True))
    found = draws()
    assert torch.equal(found[0], expected[0])
    assert found[1:] == expected[1:]
