"""That the ingest's benchmark compares the same work: once, on a small synthetic patient."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.benchmarks import ingest
from tests.benchmarks.ingest_peer import ingest_patient
from xr2ct.ingest import case
from xr2ct.store import write


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
def test_a_script_of_simpleitk_and_plastimatch_makes_the_same_of_a_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XR2CT_REAL_DATA", raising=False)
    series, peers = ingest.patient(tmp_path, matrix=96), tmp_path / "peer"
    peers.mkdir()
    task = ingest.task_of(series, tmp_path / "store")
    assert not case.work(task).reason
    ingest_patient(series, peers, write.read_case(task.store, task.row.case)["cube_centre_mm"])
    apart = ingest.difference(task, peers)
    assert max(apart["mean_difference_hu"].values()) < 5
    # Plastimatch takes what is at or below -800 HU, most of a lung, for nothing.
    assert apart["views_relative_l2"] < 0.06
