"""The X-rays that came in beside what the volume would look like to the same machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from xr2ct.cohorts.itk import itk_name
from xr2ct.errors import UserError
from xr2ct.evaluation.reprojection import COLUMNS, reprojection_error
from xr2ct.projection.geometry import NAMED, VIEW_ANGLES, VIEW_NAMES, Geometry, parse_view
from xr2ct.projection.projector import attenuation, project
from xr2ct.projection.radiograph import is_dicom, read_radiograph
from xr2ct.projection.views import Stated, read_view
from xr2ct.provenance import sha256
from xr2ct.reconstruction.pose import Pose, move
from xr2ct.viewing.volumes import Volume

SHOWN = (VIEW_ANGLES["AP"], VIEW_ANGLES["RLAT"])
"""Degrees at which a volume is projected beside the X-rays that came in."""

_STILL = Pose()
_KEYS = ("sad_mm", "sid_mm", "detector_mm")
_OWN_SCALE = "it has the mean and contrast of the re-projection, for its own scale is unknown"
_STATED = f"expected --geometry {'|'.join(NAMED)}, or a .mha that says it as `xr2ct project` writes them"


@dataclass(frozen=True, eq=False)
class View:
    """A volume seen from an angle, and the X-ray that was taken there."""

    angle_deg: float
    geometry: Geometry
    made: np.ndarray
    """(row, col) float32 line integrals of the volume, its middle at the isocentre. NaN beside the volume,
    where a radiograph sees further."""
    taken: np.ndarray | None = None
    """The X-ray that came in, the same pixels; None where there was none. NaN where nothing was measured."""
    relative_l2: float | None = None
    """‖made − taken‖ / ‖taken‖, of what was measured."""
    floor: float | None = None
    """The same of the true CT on this grid, which lacks what is finer than its voxels."""
    pose: Pose = _STILL
    """How the patient lay for it, as the volume's header says."""
    notes: tuple[str, ...] = ()
    """What was assumed or found of the X-ray, a line each."""

    @property
    def name(self) -> str:
        """The radiographer's, or degrees."""
        return VIEW_NAMES.get(self.angle_deg, f"{self.angle_deg:g}°")


def views_of(
    volume: Volume, xrays: Sequence[str], given: Stated | None = None, *, truth: Volume | None = None
) -> list[View]:
    """The volume from the angle of each of `xrays` (``ANGLE=FILE`` or ``NAME=FILE``), frontal and lateral.

    Each X-ray's geometry is the one stated, else what its .mha says; the other views have the first X-ray's,
    or `x2ct`. A DICOM radiograph is known up to a gain and an offset, which are chosen to give it the mean
    and the standard deviation of the re-projection. Raises `UserError` for an X-ray without a geometry, given
    twice, or that contradicts what is stated, as `projection.views.read_view` and
    `projection.radiograph.read_radiograph` find it.
    """
    given = given or Stated()
    found: dict[float, View] = {}
    for text in xrays:
        angle, file = parse_view(text, "--xray")
        if angle in found:
            raise UserError(f"--xray {text}: {angle:g}° is given twice")
        found[angle] = _compared(volume, angle, file, given, truth)
    first = next((view.geometry for view in found.values()), NAMED["x2ct"])
    beside = given.geometry or first
    others = [View(a, beside, project_view(volume, beside, a)) for a in SHOWN if a not in found]
    return [*found.values(), *others]


def project_view(
    volume: Volume, geometry: Geometry, angle_deg: float, pose: Pose | None = None
) -> np.ndarray:
    """(row, col) float32 line integrals of a volume whose middle is the isocentre; `pose` moves a cube."""
    mu = attenuation(torch.from_numpy(volume.values))
    if pose is not None and not pose.still:
        mu = move(mu, mu.new_tensor(pose.motion), volume.spacing_mm[0] * len(mu))
    return project(mu[None], volume.spacing_mm, geometry, (angle_deg,))[0, 0].numpy()


def _compared(volume: Volume, angle: float, file: Path, given: Stated, truth: Volume | None) -> View:
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    notes = _provenance(volume, angle, file)
    if is_dicom(file):
        return _radiograph(volume, angle, file, given, truth, notes)
    geometry = _geometry_of(file, given.geometry)
    taken = read_view(file, angle, geometry, given.png_scale)
    pose = _pose(volume, angle)
    made = project_view(volume, geometry, angle, pose)
    floor = None if truth is None else _error(project_view(truth, geometry, angle, pose), taken)
    return View(angle, geometry, made, taken, _error(made, taken), floor, pose, (*notes, *_moved(pose)))


def _radiograph(
    volume: Volume, angle: float, file: Path, given: Stated, truth: Volume | None, notes: list[str]
) -> View:
    """Compared where the radiograph has measured something and the volume reaches."""
    geometry = given.geometry
    if geometry is None:
        raise UserError(f"{file}: a radiograph does not say where the patient was; {_STATED}")
    picture = read_radiograph(file, angle, geometry, detector_mm=given.detector_mm, accept=given.accept)
    held = project_view(replace(volume, values=np.zeros_like(volume.values)), geometry, angle) > 0
    pose = _pose(volume, angle)
    taken = np.where(picture.seen, picture.line_integrals, np.float32(np.nan))
    made = np.where(held, project_view(volume, geometry, angle, pose), np.float32(np.nan))
    fitted = _fitted(taken, made)
    floor = None
    if truth is not None:
        of_truth = np.where(held, project_view(truth, geometry, angle, pose), np.float32(np.nan))
        floor = _error(of_truth, _fitted(taken, of_truth))
    both = picture.seen & held
    alike = np.corrcoef(made[both], fitted[both])[0, 1] if both.any() else np.nan
    scale = f"{_OWN_SCALE}; the two pictures' correlation is {alike:.2f}"
    notes = [*notes, *_moved(pose), *picture.notes, scale]
    return View(angle, geometry, made, fitted, _error(made, fitted), floor, pose, tuple(notes))


def _provenance(volume: Volume, angle: float, file: Path) -> list[str]:
    """Whether the volume says that it was made from this file."""
    told = volume.header.get("xr2ct_views_sha256", "")
    digests = dict(part.split(":", 1) for part in told.split() if ":" in part)
    if not digests:
        return []
    expected = digests.get(f"{angle:g}")
    if expected is None:
        return [f"the volume was made of views at {', '.join(f'{a}°' for a in digests)}, not of this one"]
    if sha256(file) == expected:
        return ["the volume was made from this file"]
    return ["not the file that the volume was made from: its SHA-256 differs from the volume's header"]


def _pose(volume: Volume, angle: float) -> Pose:
    """How the patient lay for a view, where `reconstruct --align` has found that of this cube."""
    views = volume.header.get("xr2ct_views_deg", "").split()
    poses = volume.header.get("xr2ct_poses", "").split(";")
    if len(set(volume.values.shape)) > 1 or len(views) != len(poses):
        return _STILL
    try:
        found = {
            float(view): Pose.of([float(figure) for figure in pose.split()])
            for view, pose in zip(views, poses, strict=True)
        }
    except ValueError:
        return _STILL
    return found.get(angle, _STILL)


def _moved(pose: Pose) -> list[str]:
    if pose.still:
        return []
    turned, shifted = (", ".join(f"{v:g}" for v in part) for part in (pose.rotation_deg, pose.shift_mm))
    return [f"the patient is projected as aligned: turned by {turned}° and shifted by {shifted} mm (x, y, z)"]


def _geometry_of(path: Path, stated: Geometry | None) -> Geometry:
    """The stated machine, or what a .mha says of it, with the file's pixels."""
    suffix = path.suffix.lower()
    if stated is None and suffix != ".mha":
        raise UserError(f"{path}: does not say how the X-ray was taken; {_STATED}")
    if stated is not None and suffix == ".npy":
        return replace(stated, pixels=_rows_of_npy(path) or stated.pixels)
    try:
        with itk_name(path) as name:
            reader = sitk.ImageFileReader()
            reader.SetFileName(name)
            reader.ReadImageInformation()
    except (RuntimeError, OSError):
        raise UserError(f"{path}: cannot be read as a {suffix} picture") from None
    if stated is not None:
        return replace(stated, pixels=reader.GetSize()[0])
    lacking = [key for key in _KEYS if not reader.HasMetaDataKey(key)]
    if lacking:
        raise UserError(f"{path}: its header has no {', '.join(lacking)}; {_STATED}")
    try:
        sad, sid, detector = (float(reader.GetMetaData(key)) for key in _KEYS)
    except ValueError:
        raise UserError(f"{path}: {', '.join(_KEYS)} in its header are not all numbers; {_STATED}") from None
    return Geometry(path.name, sad, sid, detector, reader.GetSize()[0])


def _rows_of_npy(path: Path) -> int | None:
    """None where `read_view` will say what is wrong with the file."""
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError, AttributeError):
        return None
    return shape[0] if len(shape) == 2 and shape[0] else None


def _fitted(taken: np.ndarray, made: np.ndarray) -> np.ndarray:
    """A picture that is known up to gain and offset, with the mean and the standard deviation of `made`.

    Unlike a fit by least squares, that keeps the contrast of a picture that has little to do with the other.
    """
    both = np.isfinite(taken) & np.isfinite(made)
    if not both.any() or taken[both].std() == 0:
        return taken
    gain = made[both].std() / taken[both].std()
    return (gain * (taken - taken[both].mean()) + made[both].mean()).astype(np.float32)


def _error(made: np.ndarray, taken: np.ndarray) -> float:
    """The relative one; an X-ray that is nowhere above 0 makes it infinite."""
    seen = torch.from_numpy(np.isfinite(taken) & np.isfinite(made))
    return reprojection_error(torch.from_numpy(made)[seen], torch.from_numpy(taken)[seen])[COLUMNS[0]]
