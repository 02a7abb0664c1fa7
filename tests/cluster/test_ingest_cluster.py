"""A cohort spread over an array: members stopped and killed, patients that fail, and one store even so."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bed import Bed, wait_until
from chest_volumes import CUBE_MM, chest, write_dicom, write_mha

LARGE = 18
"""Patients whose scans take a second or two, so that something can happen meanwhile."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small DICOM series, which come first, and the larger scans."""
    folder = tmp_path_factory.mktemp("source with spaces")
    for number in range(2):
        write_dicom(folder / f"A-{number}", chest(number), f"A-{number}", f"1.2.{number + 1}")
    for number in range(LARGE):
        fine = np.repeat(np.repeat(chest(number + 2), 12, axis=1), 12, axis=2)
        write_mha(folder / f"B-{number:02d}.mha", fine, (0.5, 0.5, 3.0))
    return folder


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    lines = (
        "executor: slurm",
        "partition: main",
        "cpus_per_task: 1",
        "time_limit_min: 10",
        "signal_lead_s: 30",
    )
    path.write_text("\n".join(lines) + "\n")
    return path


def command(source: Path, store: Path, *further: object) -> list[str]:
    words = ["ingest", "lidc-idri", source, "--out", store, "--size", 16, "--cube-mm", CUBE_MM]
    return [str(word) for word in (*words, "--pixels", 32, "--splits", "seeded", "--workers", 1, *further)]


@contextmanager
def lost(file: Path) -> Iterator[None]:
    """A file that the system cannot read meanwhile, as on a disk that is away."""
    aside = file.with_suffix(".aside")
    file.rename(aside)
    file.symlink_to(file)
    yield
    file.unlink()
    aside.rename(file)


@contextmanager
def no_node_free(bed: Bed) -> Iterator[None]:
    """Jobs are submitted, and wait."""
    nodes = "nodename=n[1-2]"
    bed.run("scontrol", "update", nodes, "state=drain", "reason=test")
    try:
        yield
    finally:
        bed.run("scontrol", "update", nodes, "state=resume")


def finished(store: Path) -> dict[str, int]:
    """Cases that have their file, and when it came."""
    return {p.stem: p.stat().st_mtime_ns for p in (store / "cases").glob("[!.]*.json")}


def tree(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def jobs_of(said: str) -> list[str]:
    return re.findall(r"\d+_\d+", said.splitlines()[0])


@pytest.mark.slow
def test_an_array_with_every_mishap_makes_the_store_of_one_command(
    bed: Bed, source: Path, profile: Path, tmp_path: Path
) -> None:
    store, plan = tmp_path / "stores" / "lidc-idri.zarr", tmp_path / "plan.csv"
    bed.xr2ct("plan", "lidc-idri", source, "--out", plan, "--workers", 1)
    ingest = command(plan, store)
    folder = store.with_name("lidc-idri.zarr-ingest")

    def failed() -> bool:
        journals = (folder / "private" / "journals").glob("*.jsonl")
        return sum(file.read_text().count('"failed": true') for file in journals) >= 2

    with lost(source / "A-1" / "007.dcm"):
        with lost(source / "A-0" / "003.dcm"):
            with no_node_free(bed):
                *array, last = jobs_of(bed.xr2ct(*ingest, "--cluster", profile).stdout)
                assert len(array) == 3
                assert "filling it" in bed.xr2ct(*ingest, expect=1).stderr
                assert "filling it" in bed.xr2ct(*ingest, "--cluster", profile, expect=1).stderr
            wait_until(
                "both patients failed once, and some cases are there", lambda: failed() and finished(store)
            )
        before = finished(store)
        os.kill(bed.rank_process(array[0], 0), signal.SIGKILL)
        bed.run("scancel", "--batch", "--signal=USR1", array[1])
        for job in array:
            assert bed.wait_ended(job) == "COMPLETED"
        assert bed.state(last) != "COMPLETED", "it did not wait for members that came back"
        assert bed.wait_ended(last) == "COMPLETED"
    assert [bed.restarts(job) for job in array] == [1, 1, 0]
    assert {case: when for case, when in finished(store).items() if case in before} == before
    report = json.loads((folder / "report.json").read_text())
    assert len(report["kept"]) == report["computed"] == LARGE + 1
    (refused,) = report["refused"]
    assert refused["patient"] == "A-1"
    assert refused["reason"].endswith("cannot be read (Too many levels of symbolic links), twice")
    assert "A-1" in (folder / "report.txt").read_text()
    assert not (folder / "private").exists()
    bed.xr2ct(*ingest)  # the disk is back: the same command, without jobs, takes what was refused
    bed.xr2ct(*command(plan, tmp_path / "whole.zarr"))
    ours = tree(store)
    assert ours.pop("refused.csv") == b"patient,series,reason\n"
    assert ours == tree(tmp_path / "whole.zarr")


@pytest.mark.slow
def test_cancelled_midway_the_same_command_goes_on(
    bed: Bed, source: Path, profile: Path, tmp_path: Path
) -> None:
    store = tmp_path / "lidc-idri.zarr"
    ingest = command(source, store, "--cluster", profile)
    jobs = jobs_of(bed.xr2ct(*ingest).stdout)
    wait_until("some cases are there", lambda: len(finished(store)) >= 3)
    bed.run("scancel", *{job.split("_")[0] for job in jobs})
    for job in jobs:
        bed.wait_ended(job)
    before = finished(store)
    assert len(before) < LARGE
    told = bed.xr2ct(*ingest, "--wait")
    assert f"{LARGE + 2} cases kept ({LARGE + 2 - len(before)} computed now)" in told.stdout
    assert {case: when for case, when in finished(store).items() if case in before} == before
