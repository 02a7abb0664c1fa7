"""From a few X-rays to a volume in HU that opens where the patient would lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from xr2ct.errors import UserError
from xr2ct.exchange.volumes import write_volume
from xr2ct.projection.geometry import VIEW_ANGLES, Geometry, parse_angle
from xr2ct.projection.views import read_view, scale_views
from xr2ct.reconstruction.provenance import provenance
from xr2ct.reconstruction.self_test import self_test
from xr2ct.seeds import derive_seed
from xr2ct.stages import load_stages
from xr2ct.weights import Which, checkpoint_geometry
from xr2ct.window import HuWindow

FORMATS = (".mha", ".nii.gz", ".npy")


def reconstruct(
    checkpoint: Path,
    views: Sequence[str],
    out: Path,
    *,
    which: Which = "mapper",
    geometry: Geometry | None = None,
    png_scale: float | None = None,
    memory_gb: float | None = None,
    device: str = "cpu",
) -> Path:
    """Write the volume that a checkpoint makes of `views`, each ``ANGLE=FILE`` or ``NAME=FILE``.

    Views are line integrals, row 0 at the head's end, columns as `projection.geometry` says; a `.png` needs
    `png_scale`, the line integral of its brightest grey level. `geometry` is what the X-rays were taken
    with, where the user states it. memory_gb: what the reconstruction may take (`memory_limit.fit`). Raises
    `UserError` for views, sizes or a geometry that the checkpoint was not trained for, and for a limit that
    nothing fits into.
    """
    if not str(out).endswith(FORMATS):
        raise UserError(f"{out}: expected a name ending in {', '.join(FORMATS)}")
    stages = load_stages(checkpoint, which, device)
    experiment = stages.experiment
    trained = checkpoint_geometry(experiment)
    if geometry is not None:
        _check_geometry(geometry, trained)
    files = _by_angle(views, experiment.data.views)
    stack = np.stack([read_view(file, angle, trained, png_scale) for angle, file in files.items()])
    scaled = scale_views(stack, experiment.data.xray_scale)
    if memory_gb is not None:
        from xr2ct.memory_limit import GB, fit

        fit(stages, memory_gb * GB)
    tested = self_test(stages)
    unit = stages(torch.from_numpy(scaled)[None].to(device), content_seeds(scaled).to(device))[0, 0]
    hu = _in_hu(unit, HuWindow(*experiment.data.hu_window))
    assert experiment.resolved is not None
    header = provenance(checkpoint, stages, files, which=which, self_test=tested)
    write_volume(hu, experiment.resolved.cube_mm, out, header)
    return out


def _in_hu(unit: torch.Tensor, window: HuWindow) -> np.ndarray:
    """int16 HU (z, y, x), slice by slice: of a large volume there is no room for a second one in floats."""
    hu = np.empty(tuple(unit.shape), np.int16)
    for place, part in zip(hu, unit, strict=True):
        place[...] = window.to_hu(part.cpu().numpy()).round()
    return hu


def content_seeds(views: np.ndarray) -> torch.Tensor:
    """(1, 2) int64, in the place of `methods.base.Batch.seeds`: one number from the X-rays' own content.

    What a mapper draws at random is so the same each time for the same scaled views (view, row, col), which
    stand for a patient whom no store knows and for a sample that has no place in training.
    """
    content = hashlib.blake2b(np.ascontiguousarray(views, "<f4").tobytes()).hexdigest()
    return torch.full((1, 2), derive_seed(0, "x-rays", content), dtype=torch.int64)


def _by_angle(views: Sequence[str], trained: Sequence[float]) -> dict[float, Path]:
    """Files in the order of the mapper's channels."""
    given: dict[float, Path] = {}
    for view in views:
        name, sign, file = view.partition("=")
        if not sign or not file:
            raise UserError(
                f"--view {view}: expected ANGLE=FILE or NAME=FILE with NAME of {', '.join(VIEW_ANGLES)}"
            )
        angle = parse_angle(name)
        if angle in given:
            raise UserError(f"--view {view}: {angle:g}° is given twice")
        given[angle] = Path(file)
    if set(given) != set(trained):
        raise UserError(
            f"--view: this checkpoint was trained for {_degrees(trained)}, got {_degrees(given) or 'none'}"
        )
    return {angle: given[angle] for angle in trained}


def _check_geometry(given: Geometry, trained: Geometry) -> None:
    pairs = [(k, v, getattr(trained, k)) for k, v in given.as_attributes().items() if k != "name"]
    wrong = [f"{key} {theirs:g}, not {ours:g}" for key, ours, theirs in pairs if ours != theirs]
    if wrong:
        raise UserError(f"geometry {given.name!r}: this checkpoint was trained with {'; '.join(wrong)}")


def _degrees(angles: Sequence[float] | dict[float, Path]) -> str:
    return ", ".join(f"{a:g}°" for a in angles)
