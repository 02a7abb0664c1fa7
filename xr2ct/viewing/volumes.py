"""What a page shows of a patient, from its files: a volume in HU, and others on the same grid."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch.nn import functional

from xr2ct.cohorts.images import READERS, check_hu
from xr2ct.cohorts.itk import itk_name
from xr2ct.cohorts.reader import read_volume_file
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import SUFFIXES, volume_kind
from xr2ct.cohorts.volume import clip_hu, patient_axes
from xr2ct.errors import UserError
from xr2ct.exchange.volumes import volume_header

Triple = tuple[float, float, float]

_SAME_PLACE = 0.1
"""Of a voxel: how far two grids may lie apart and still be one. Headers hold rounded decimals."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Numbers on a grid along the patient's axes."""

    values: np.ndarray
    """(z, y, x) int16 or float32: z feet to head, y front to back, x right to left of the patient."""
    spacing_mm: Triple
    """z, y, x."""
    origin_mm: Triple | None = None
    """z, y, x (LPS) of the first voxel's centre; None where the file does not say."""
    header: dict[str, str] = field(default_factory=dict)
    """What the file says of where it came from, `exchange.volumes.volume_header`."""

    @property
    def centre_mm(self) -> Triple | None:
        """z, y, x of its middle, where the file says where it lies."""
        if self.origin_mm is None:
            return None
        z, y, x = (
            o + (n - 1) / 2 * d
            for o, n, d in zip(self.origin_mm, self.values.shape, self.spacing_mm, strict=True)
        )
        return z, y, x

    @property
    def first_mm(self) -> Triple:
        """z, y, x of the first voxel's centre; its distance from the middle where nothing else is known."""
        z, y, x = (-(n - 1) / 2 * d for n, d in zip(self.values.shape, self.spacing_mm, strict=True))
        return self.origin_mm or (z, y, x)


def read_hu(path: Path, cube_mm: float | None = None) -> Volume:
    """A volume in HU: a NIfTI, MHA, NRRD or X2CT file, a folder with one DICOM series, or a .npy cube.

    A .npy holds an array (z, y, x) alone, as `reconstruct` writes it: `cube_mm` is its side, and its middle
    the origin. Raises `UserError` for a .npy without it, another file with it, and what `read_volume_file`
    does not take.
    """
    if path.suffix.lower() == ".npy":
        return replace(_read_npy(path, cube_mm, hu=True), header=volume_header(path))
    _check_suffix(path, cube_mm)
    native = read_volume_file(path)
    kind = None if path.is_dir() else volume_kind(path)
    if kind not in READERS:
        return Volume(native.hu, native.spacing_mm)
    with itk_name(path) as name:
        reader = sitk.ImageFileReader()
        reader.SetImageIO(READERS[kind])
        reader.SetFileName(name)
        reader.ReadImageInformation()
    first = _first_mm(native.hu.shape, native.spacing_mm, reader.GetOrigin(), reader.GetDirection())
    return Volume(native.hu, native.spacing_mm, first, volume_header(path))


def read_map(path: Path, like: Volume, what: str, cube_mm: float | None = None) -> Volume:
    """A second image of the volume `like`, in HU but of any range, as of doubt: float32, on the same grid.

    Raises `UserError` naming the file where it cannot be read, has voxels that are no finite number, or lies
    on another grid. `what` says in that line what was expected.
    """
    if path.suffix.lower() == ".npy":
        side = like.spacing_mm[0] * like.values.shape[0] if cube_mm is None else cube_mm
        found = _read_npy(path, side, hu=False)
    else:
        found = _read_image(path)
    check_grid(path, found, like, what)
    return replace(found, header=volume_header(path))


def read_truth(path: Path, like: Volume, cube_mm: float | None = None) -> Volume:
    """The true CT of `like`; raises `UserError` as `read_hu` does, and for another grid."""
    is_array = path.suffix.lower() == ".npy"
    side = like.spacing_mm[0] * like.values.shape[0] if cube_mm is None else cube_mm
    truth = read_hu(path, side if is_array else None)
    check_grid(path, truth, like, "the true CT")
    return truth


def check_grid(path: Path, found: Volume, like: Volume, what: str) -> None:
    """`UserError` where `found` has other voxels than `like`, or has them elsewhere."""
    same = found.values.shape == like.values.shape and np.allclose(
        found.spacing_mm, like.spacing_mm, rtol=1e-3
    )
    if not same:
        raise UserError(
            f"{path}: {what} has {_grid(found)}; expected the volume's, {_grid(like)} (z × y × x)"
        )
    if found.origin_mm is None or like.origin_mm is None:
        return
    apart = np.abs(np.subtract(found.origin_mm, like.origin_mm)) / like.spacing_mm
    if apart.max() > _SAME_PLACE:
        raise UserError(
            f"{path}: {what} begins at {_mm(found.origin_mm)} mm; expected the volume's, "
            f"{_mm(like.origin_mm)} mm (x, y, z)"
        )


def shrink(volume: Volume, largest: int) -> Volume:
    """The volume with at most `largest` voxels along each axis, each the mean of those in its place.

    Its extent stays as it was, and it is the same volume where it is no larger.
    """
    shape = volume.values.shape
    if max(shape) <= largest:
        return volume
    size = tuple(min(n, largest) for n in shape)
    values = torch.from_numpy(np.ascontiguousarray(volume.values, np.float32))
    mean = functional.interpolate(values[None, None], size=size, mode="area")[0, 0].numpy()
    kept = np.rint(mean).astype(np.int16) if volume.values.dtype == np.int16 else mean
    z, y, x = (d * n / m for d, n, m in zip(volume.spacing_mm, shape, size, strict=True))
    first = None
    if volume.origin_mm is not None:
        oz, oy, ox = (
            o + (new - old) / 2
            for o, new, old in zip(volume.origin_mm, (z, y, x), volume.spacing_mm, strict=True)
        )
        first = oz, oy, ox
    return replace(volume, values=kept, spacing_mm=(z, y, x), origin_mm=first)


def _read_npy(path: Path, cube_mm: float | None, hu: bool) -> Volume:
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if cube_mm is None:
        raise UserError(
            f"{path}: a .npy does not say its size; expected --cube-mm, the side of its cube (320)"
        )
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or values.ndim != 3:
        raise UserError(f"{path}: expected one array (z, y, x) of numbers")
    if len(set(values.shape)) != 1:
        raise UserError(f"{path}: {'×'.join(map(str, values.shape))} voxels; expected a cube")
    if hu:
        try:
            check_hu(values, path.name)
        except Refused as reason:
            raise UserError(f"{path}: {reason}") from None
        values = clip_hu(values)
    step = cube_mm / values.shape[0]
    first = -(cube_mm - step) / 2
    return Volume(_finite(path, values), (step, step, step), (first, first, first))


def _read_image(path: Path) -> Volume:
    """Any numbers, which `read_volume_file` would refuse as no HU."""
    _check_suffix(path, None)
    kind = volume_kind(path)
    if kind not in READERS:
        raise UserError(
            f"{path}: expected one of {', '.join(s for s, k in SUFFIXES.items() if k in READERS)}"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with itk_name(path) as name:
            image = sitk.ReadImage(name, imageIO=READERS[kind])
    except (RuntimeError, OSError):
        raise UserError(f"{path}: cannot be read as {kind}") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(f"{path}: expected one 3D volume of single values")
    try:
        turn = patient_axes(_directions(image.GetDirection()))
    except Refused as reason:
        raise UserError(f"{path}: {reason}") from None
    values = turn.apply(sitk.GetArrayFromImage(image))
    z, y, x = (image.GetSpacing()[::-1][source] for source in turn.order)
    first = _first_mm(values.shape, (z, y, x), image.GetOrigin(), image.GetDirection())
    return Volume(_finite(path, values), (z, y, x), first)


def _check_suffix(path: Path, cube_mm: float | None) -> None:
    if path.exists() and not path.is_dir() and volume_kind(path) is None:
        raise UserError(f"{path}: expected one of {', '.join([*SUFFIXES, '.npy'])}, or a folder of DICOM")
    if cube_mm is not None:
        raise UserError(f"{path}: --cube-mm is the side of a .npy; this file says its own")


def _finite(path: Path, values: np.ndarray) -> np.ndarray:
    kept = values if values.dtype == np.int16 else values.astype(np.float32)
    if not np.isfinite(kept).all():
        raise UserError(f"{path}: has voxels that are not a finite number")
    return kept


def _directions(flat: tuple[float, ...]) -> np.ndarray:
    """(3, 3): for each axis of the array (z, y, x as they lie in the file) its unit vector in LPS x, y, z."""
    return np.array(flat).reshape(3, 3).T[::-1]


def _first_mm(
    shape: tuple[int, ...], spacing_mm: Triple, origin: tuple[float, ...], flat: tuple[float, ...]
) -> Triple:
    """z, y, x of the first voxel's centre once the array is in patient axes of `shape` and `spacing_mm`."""
    directions = _directions(flat)
    turn = patient_axes(directions)
    first = np.array(origin)  # x, y, z
    for axis, (source, flipped) in enumerate(zip(turn.order, turn.flipped, strict=True)):
        if flipped:
            first = first + directions[source] * spacing_mm[axis] * (shape[axis] - 1)
    x, y, z = (float(value) for value in first)
    return z, y, x


def _grid(volume: Volume) -> str:
    voxels = " × ".join(map(str, volume.values.shape))
    return f"{voxels} voxels of {' × '.join(f'{d:g}' for d in volume.spacing_mm)} mm"


def _mm(place: Triple) -> str:
    return ", ".join(f"{value:.1f}" for value in place[::-1])
