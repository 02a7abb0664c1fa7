"""From a few X-rays to a volume in HU that opens where the patient would lie."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xr2ct.config import Experiment, Way
from xr2ct.errors import UserError
from xr2ct.exchange.volumes import write_volume
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import Stated
from xr2ct.reconstruction.beams import Beams
from xr2ct.reconstruction.calibration import header, read_calibration
from xr2ct.reconstruction.familiar import load_familiar
from xr2ct.reconstruction.make import Made, Maker
from xr2ct.reconstruction.pictures import Pictures, read_pictures
from xr2ct.reconstruction.provenance import provenance
from xr2ct.reconstruction.self_test import self_test
from xr2ct.reconstruction.unseen import unseen
from xr2ct.seeds import derive_seed
from xr2ct.stages import load_stages
from xr2ct.weights import Which, checkpoint_geometry
from xr2ct.window import HuWindow

log = logging.getLogger(__name__)

FORMATS = (".mha", ".nii.gz", ".npy")


@dataclass(frozen=True)
class Asked:
    """What is written beside the volume of one pass of the mapper, and how it may be made."""

    way: Way = field(default_factory=Way)
    unseen: bool = False
    """Also the part of the volume that leaves no trace in the X-rays."""
    memory_gb: float | None = None
    """What the mapper's pass may take (`memory_limit.fit`)."""
    which: Which = "mapper"
    device: str = "cpu"


def reconstruct(
    checkpoint: Path,
    views: Sequence[str],
    out: Path,
    asked: Asked | None = None,
    stated: Stated | None = None,
) -> list[Path]:
    """Write the volume that a checkpoint makes of `views`, each ``ANGLE=FILE`` or ``NAME=FILE``.

    checkpoint: a folder of training's, or a file of `xr2ct export`. Views are as `pictures.read_pictures`
    takes them. Returns the files: the volume, and where asked for NAME-doubt and NAME-unseen beside it.
    Raises `UserError` for views, sizes or a geometry that the checkpoint was not trained for, for a limit
    that nothing fits into, and for a way that it cannot go.
    """
    asked = asked or Asked()
    names = _names(out)
    if asked.memory_gb is not None and (asked.way != Way() or asked.unseen):
        raise UserError("--memory-gb counts one pass of the mapper; leave out what is to be done beside it")
    stages = load_stages(checkpoint, asked.which, asked.device)
    experiment = stages.experiment
    given = _read(checkpoint, experiment, views, stated or Stated())
    for note in given.notes:
        log.warning("%s", note)
    maker = Maker.of(checkpoint, stages, asked.way, asked.which, asked.device)
    if asked.memory_gb is not None:
        from xr2ct.memory_limit import GB, fit

        fit(stages, asked.memory_gb * GB)
    tested = self_test(stages)
    window = HuWindow(*experiment.data.hu_window)
    xrays = given.xrays.to(asked.device)
    scaled = stages.scale(xrays.line_integrals)
    made = maker(xrays, content_seeds(scaled[0].cpu().numpy()).to(asked.device), window)
    told = provenance(checkpoint, stages, given.files, way=asked.way, self_test=tested)
    images = {"": _Image(made.unit, window.to_hu, told | _found(made))}
    if made.doubt is not None:
        images["doubt"] = _doubt_image(checkpoint, maker, made, asked, window, told)
    if asked.unseen:
        images["unseen"] = _unseen_image(made.unit, maker.beams(window, made.aligned), xrays.seen, told)
    for name, image in images.items():
        write_volume(image.in_int16(), maker.cube_mm, names(name), image.header)
    return [names(name) for name in images]


def _read(checkpoint: Path, experiment: Experiment, views: Sequence[str], stated: Stated) -> Pictures:
    trained = checkpoint_geometry(experiment)
    if stated.geometry is not None:
        _check_geometry(stated.geometry, trained)
    return read_pictures(
        views,
        experiment,
        trained,
        png_scale=stated.png_scale,
        detector_mm=stated.detector_mm,
        accept=stated.accept,
        familiar=load_familiar(checkpoint),
    )


@dataclass(frozen=True)
class _Image:
    volume: Tensor
    to_hu: Callable[[np.ndarray], np.ndarray]
    header: Mapping[str, str]

    def in_int16(self) -> np.ndarray:
        """Whole HU (z, y, x), slice by slice: a large volume leaves no room for a second one in floats."""
        hu = np.empty(tuple(self.volume.shape), np.int16)
        for place, part in zip(hu, self.volume, strict=True):
            place[...] = self.to_hu(part.cpu().numpy()).round()
        return hu


def _doubt_image(
    checkpoint: Path, maker: Maker, made: Made, asked: Asked, window: HuWindow, told: Mapping[str, str]
) -> _Image:
    """The standard deviation of each voxel, as calibrated on the validation split where that was done."""
    assert made.doubt is not None
    label, sd = asked.way.label, made.doubt
    kept = read_calibration(checkpoint, label)
    if kept is not None and kept.applies_to(maker.over, maker.stages.which):
        sd = kept.apply(made.unit, sd, window, maker.cube_mm)
    else:
        kept = None
        log.warning(
            "%s: %s: not calibrated, so that the doubt is how far the volumes lie apart, not how far off "
            "they are; `xr2ct evaluate RUN` in the same way calibrates it",
            checkpoint,
            label,
        )
    return _Image(
        sd, lambda unit: unit * window.width, {**told, **header(str(asked.way.doubt), maker.over, kept)}
    )


def _unseen_image(unit: Tensor, beams: Beams, seen: Tensor | None, told: Mapping[str, str]) -> _Image:
    """What of the volume its X-rays say nothing of."""
    part = unseen(unit, beams, seen)
    log.info("%.1f %% of the volume leaves no trace in the X-rays", 100 * part.fraction)
    figures = {"xr2ct_unseen_fraction": f"{part.fraction:.4f}", "xr2ct_unseen_unit": "HU"}
    return _Image(part.part_hu, lambda hu: hu, {**told, **figures})


def _found(made: Made) -> dict[str, str]:
    """What became known of the X-rays, for the log and for the volume's header."""
    told = {}
    if made.aligned is not None:
        told["xr2ct_poses"] = "; ".join(" ".join(f"{f:.2f}" for f in p.motion) for p in made.aligned.poses)
        log.info("poses, rotation in degrees and shift in mm by view: %s", told["xr2ct_poses"])
    if made.refined is not None:
        before, after = made.refined.before, made.refined.after
        told["xr2ct_reprojection"] = f"{before:.4f} {after:.4f}"
        log.info(
            "re-projection error %.2f %% → %.2f %% in %d steps, ended by: %s",
            100 * before, 100 * after, made.refined.steps, made.refined.stopped,
        )  # fmt: skip
    return told


def content_seeds(views: np.ndarray) -> torch.Tensor:
    """(1, 2) int64, in the place of `methods.base.Batch.seeds`: one number from the X-rays' own content.

    What a mapper draws at random is so the same each time for the same scaled views (view, row, col), which
    stand for a patient whom no store knows and for a sample that has no place in training.
    """
    content = hashlib.blake2b(np.ascontiguousarray(views, "<f4").tobytes()).hexdigest()
    return torch.full((1, 2), derive_seed(0, "x-rays", content), dtype=torch.int64)


def _names(out: Path) -> Callable[[str], Path]:
    """Of the volume for an empty name, and of what lies beside it: patient.mha, patient-doubt.mha."""
    suffix = next((s for s in FORMATS if out.name.endswith(s)), None)
    if suffix is None:
        raise UserError(f"{out}: expected a name ending in {', '.join(FORMATS)}")
    stem = out.name.removesuffix(suffix)
    return lambda name: out.with_name(f"{stem}-{name}{suffix}" if name else out.name)


def _check_geometry(given: Geometry, trained: Geometry) -> None:
    pairs = [(k, v, getattr(trained, k)) for k, v in given.as_attributes().items() if k != "name"]
    wrong = [f"{key} {theirs:g}, not {ours:g}" for key, ours, theirs in pairs if ours != theirs]
    if wrong:
        raise UserError(f"geometry {given.name!r}: this checkpoint was trained with {'; '.join(wrong)}")
