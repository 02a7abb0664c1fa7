"""A patient from DICOM slices to cubes of 64³ and 128³ and eight X-rays, against SimpleITK and Plastimatch.

Ours is what a worker does for one patient (`xr2ct.ingest.case.work`), in this process; the peer's script runs
in this process too, and Plastimatch as the program that it is. So both are as fast as from the second patient
of a cohort on; what one patient alone takes, from the start of a process to its end, stands beside it.

Ours does more, and it counts: every header is checked, body and lungs are found (the peer is told the cube's
centre), the lungs' coverage and what lies outside cube and beam are measured, 64³ and 128³ come straight from
the slices, chunks are on the disk before the case says so, with a checksum each. The patient is the CT in the
folder XR2CT_REAL_DATA, or else a synthetic one, both about 133 slices of 512².
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.harness import Measured, NotMeasured, Row, interleaved, seconds_of

if TYPE_CHECKING:
    from xr2ct.ingest.task import Task

SIZES = (64, 128)
ANGLES = (90.0, 45.0, 0.0, 315.0, 270.0, 225.0, 180.0, 135.0)
"""Of the peer's views."""
MATRIX = 512


def measure() -> Measured:
    if shutil.which("plastimatch") is None:
        raise NotMeasured("plastimatch is not installed (Debian package plastimatch)")
    import SimpleITK as sitk
    import torch

    from tests.benchmarks.ingest_peer import ingest_patient
    from xr2ct.ingest import case
    from xr2ct.store import write

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(len(os.sched_getaffinity(0)))
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        series, store, peers = patient(Path(folder)), Path(folder, "store"), Path(folder, "peer")
        peers.mkdir()
        task = task_of(series, store)
        try:
            torch.set_num_threads(1)  # as in every worker
            case.work(task)
            centre = write.read_case(store, task.row.case)["cube_centre_mm"]
            measured = interleaved(lambda: case.work(task), lambda: ingest_patient(series, peers, centre))
        finally:
            torch.set_num_threads(threads)
        alone = {
            "ours": seconds_of(lambda: _command(series, Path(folder, "alone"))),
            "peer": seconds_of(lambda: _script(series, peers, centre)),
        }
        detail = {"patient": series.name, "one_patient_alone_s": alone, **difference(task, peers)}
    return Measured(measured.ours, measured.peer, detail=detail)


def patient(folder: Path, matrix: int = MATRIX) -> Path:
    """The folder of a DICOM series: a real one where XR2CT_REAL_DATA is set, else synthetic, of `matrix`²."""
    if real := os.environ.get("XR2CT_REAL_DATA"):
        return Path(real, "chest", "LIDC-IDRI-0001")
    from xr2ct.cohorts.phantom import write_cohort

    (series,) = {file.parent for file in _written(folder / "dicom", write_cohort)}
    for file in series.iterdir():
        _enlarge(file, matrix)
    return series


def _written(folder: Path, write_cohort: Any) -> list[Path]:
    write_cohort(folder, "lidc-idri", 1, 0, workers=1)
    return list(folder.rglob("*.dcm"))


def _enlarge(file: Path, matrix: int) -> None:
    """A slice on a finer matrix of the same field of view, interpolated, uncompressed as most scanners'."""
    import numpy as np
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian
    from scipy import ndimage

    ds = pydicom.dcmread(file)
    pixels = ds.pixel_array
    factor = matrix / len(pixels)
    fine = ndimage.zoom(pixels, factor, order=1, grid_mode=True, mode="nearest")
    ds.Rows, ds.Columns = fine.shape
    ds.PixelSpacing = [round(step / factor, 6) for step in ds.PixelSpacing]
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.PixelData = np.ascontiguousarray(fine).tobytes()
    ds["PixelData"].VR = "OW"
    ds["PixelData"].is_undefined_length = False
    ds.save_as(file)


def task_of(series: Path, store: Path) -> Task:
    """What `xr2ct ingest` would give a worker to do of a series, its store laid out."""
    from xr2ct.ingest.command import begun
    from xr2ct.ingest.request import FRACTIONS, Request

    request = Request(
        series, store, "lidc-idri", SIZES, (), None, 320.0, 0, FRACTIONS, "test", 1, None, False, False
    )
    with begun(request, lambda lease: True) as (_, _, (task,)):
        return task


def _command(series: Path, store: Path) -> None:
    sizes = ",".join(map(str, SIZES))
    told = ["ingest", "lidc-idri", series, "--out", store, "--size", sizes, "--splits", "test"]
    subprocess.run([sys.executable, "-m", "xr2ct.cli", *told], check=True, capture_output=True)


def _script(series: Path, out: Path, centre: tuple[float, ...]) -> None:
    script = Path(__file__).with_name("ingest_peer.py")
    subprocess.run(
        [sys.executable, script, series, out, ",".join(map(repr, centre))], check=True, capture_output=True
    )


def difference(task: Task, peers: Path) -> dict[str, Any]:
    """How far the results lie apart: mean |HU| of the cubes, and of the views the median relative L2."""
    import numpy as np
    import zarr

    def ours(array: str) -> np.ndarray:
        return np.asarray(zarr.open_array(task.store / array, mode="r")[task.index], np.float64)

    hu = {size: float(np.abs(ours(f"ct/{size}") - np.load(peers / f"{size}.npy")).mean()) for size in SIZES}
    by_angle = dict(zip(task.xrays[0].angles, ours("xray/x2ct"), strict=True))
    views = np.stack([by_angle[angle] for angle in ANGLES])
    theirs = np.load(peers / "views.npy").astype(np.float64)
    theirs *= (views * theirs).sum() / (theirs * theirs).sum()  # its unit is its own
    apart = np.linalg.norm(views - theirs, axis=(1, 2)) / np.linalg.norm(views, axis=(1, 2))
    return {"mean_difference_hu": hu, "views_relative_l2": float(np.median(apart))}


ROWS = (
    Row(
        "ingest",
        "a patient, 2 cores: DICOM to int16 cubes of 64³ and 128³ and eight X-rays",
        "SimpleITK + Plastimatch exact",
        "ours/peer",
        1.0,
        measure,
    ),
)
