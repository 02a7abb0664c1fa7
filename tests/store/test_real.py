"""Real chest CT into a store, and real CT that must be refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from chest_volumes import SMALL

from xr2ct.ingest import ingest
from xr2ct.store import Store
from xr2ct.store.check import damage


@pytest.mark.slow
def test_chests_are_kept_and_a_tilted_head_is_refused(real_data: Path, tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "lidc-idri.zarr"
    source.mkdir()
    for name in ("chest", "tilted"):
        (source / name).symlink_to(real_data / name)
    report = ingest(source, store, "lidc-idri", [64], [SMALL], (0.0, 90.0), splits="seeded", workers=2)
    assert report.kept.keys() == {"LIDC-IDRI-0001", "ct-64"}
    assert [r.reason.split(":")[0] for r in report.refused] == ["gantry tilt of 18.5°"]
    opened = Store.open(store)
    assert damage(store) == []
    case = opened.cases[0]
    assert (case.id, case.attributes["kernel"]) == ("LIDC-IDRI-0001", "STANDARD")
    ct = opened.volume(case, 64)
    # Lungs in the middle of either half, tissue at the heart's side of the middle, air at the corners.
    assert np.median(ct[32, 28:36, 14:18]) < -700
    assert np.median(ct[32, 28:36, 46:50]) < -700
    assert ct[:, :4, :4].max() < -500
    for path in store.rglob("*.json"):
        assert not re.search(r"\d+\.\d+\.\d+\.\d+\.\d+", path.read_text()), f"a UID in {path.name}"
