"""`xr2ct ingest --cluster`: what is asked of the cluster, and the whole of it on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from chest_volumes import CUBE_MM, SMALL, chest, write_dicom

from launch import ingest
from launch.profiles import Profile
from xr2ct.errors import UserError
from xr2ct.ingest.lease import folder_of
from xr2ct.ingest.request import Request
from xr2ct.store import Store

LOCAL = Profile(executor="local")


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    for number in range(2):
        patient = f"SYN-{number:04d}"
        write_dicom(tmp_path / "a source" / patient, chest(number), patient, f"1.2.{number + 1}")
    store = tmp_path / "a store.zarr"
    return Request(
        tmp_path / "a source", store, "lidc-idri", (16,), (SMALL,), None, CUBE_MM, splits="seeded", workers=1
    )


def test_on_this_machine_from_the_request_to_the_report(request_: Request) -> None:
    submitted = ingest.submit(request_, LOCAL, "local")
    said: list[str] = []
    ingest.follow(submitted, said.append, poll_s=0.2)
    assert "2 cases kept (2 computed now)" in submitted.report.read_text()
    assert said[-1].endswith(f"cases in {request_.store}")
    assert len(Store.open(request_.store).cases) == 2
    assert not (folder_of(request_.store) / "private").exists()


def test_what_could_not_be_submitted_leaves_nothing(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> list[str]:
        raise UserError("Slurm refuses the job")

    monkeypatch.setattr(ingest, "submit_array", refuse)
    with pytest.raises(UserError, match="refuses"):
        ingest.submit(request_, LOCAL, "local")
    left = {p.name for p in folder_of(request_.store).iterdir()}
    assert not left & {"lease.json", "private"}


def test_a_repair_is_done_here() -> None:
    with pytest.raises(UserError, match="--repair with --cluster"):
        ingest.submit(Request(Path("s"), Path("t"), "lidc-idri", (16,), repair=True), LOCAL, "local")


@pytest.mark.parametrize(("mem_gb", "workers"), [(None, 8), (64.0, 8), (8.0, 3), (1.0, 1)])
def test_no_more_workers_than_the_profiles_memory_holds(mem_gb: float | None, workers: int) -> None:
    profile = Profile(executor="slurm", cpus_per_task=8, mem_gb=mem_gb)
    found, asked_gb = ingest._workers(Request(Path("s"), Path("t"), "lidc-idri", (64, 128)), profile)
    assert found == workers
    assert asked_gb == pytest.approx(1 + workers * 1.9, rel=0.02)
