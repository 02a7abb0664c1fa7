"""X-rays as pictures: their scale, and their files.

A view is float32 line integrals (row, col), row 0 at the head's end. DIR/angle_045.mha holds just that, its
spacing the detector's pixel pitch and its header the geometry; DIR/angle_045.png is the same for the eye.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from xr2ct.cohorts.itk import itk_name
from xr2ct.errors import UserError
from xr2ct.projection.geometry import Geometry

FORMATS = (".mha", ".npy", ".png")
_GEOMETRY_KEYS = ("sad_mm", "sid_mm", "detector_mm")
_TOLERANCE = 1e-3
"""Relative: headers hold rounded decimals."""


@dataclass(frozen=True)
class Stated:
    """What a user says of X-rays beside their files."""

    geometry: Geometry | None = None
    """They were taken with."""
    png_scale: float | None = None
    """As `read_view` takes it."""
    detector_mm: float | None = None
    accept: tuple[str, ...] = ()
    """These two as `projection.radiograph.read_radiograph`."""


def scale_views(line_integrals: np.ndarray, scale: Literal["max"] | float) -> np.ndarray:
    """(…, row, col) float32, each view divided by its own maximum, or all by one line integral.

    A view that is nowhere above 0 stays as it is. Raises `UserError` for a scale that is not positive.
    """
    views = np.asarray(line_integrals, np.float32)
    if scale == "max":
        peak = views.max(axis=(-2, -1), keepdims=True)
        return views / np.where(peak > 0, peak, np.float32(1))
    if not 0 < scale < math.inf:
        raise UserError(f"X-ray scale: expected 'max' or a line integral above 0, got {scale}")
    return views / np.float32(scale)


def read_view(path: Path, angle_deg: float, geometry: Geometry, png_scale: float | None = None) -> np.ndarray:
    """Line integrals (row, col), float32, of a view at an angle, from a .mha, .npy or .png.

    `png_scale` is the line integral of a PNG's brightest grey level (65535 or 255); black is 0. What a .mha
    says of its pixel pitch, geometry and angle must be what is expected. Raises `UserError` naming the file
    for that, another size, a PNG without its scale, and anything that is not one finite grey picture.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: expected an X-ray as {', '.join(FORMATS)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix.lower() == ".npy":
        view = _read_npy(path)
    elif path.suffix.lower() == ".mha":
        image = _read_image(path)
        _check_header(path, image, angle_deg, geometry)
        view = sitk.GetArrayFromImage(image)
    else:
        view = _read_png(path, png_scale)
    if view.shape != (geometry.pixels, geometry.pixels):
        size = "×".join(map(str, view.shape))
        raise UserError(f"{path}: expected {geometry.pixels}×{geometry.pixels} pixels, got {size}")
    if not np.isfinite(view).all():
        raise UserError(f"{path}: holds values that are not finite; expected line integrals")
    return view.astype(np.float32)


def write_views(
    folder: Path,
    views: np.ndarray,
    angles_deg: Sequence[float],
    geometry: Geometry,
    header: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write `views` (view, row, col) as DIR/angle_000.mha and .png, and return the files.

    The PNGs are 16-bit, bones white, with one scale for all: the largest line integral, `png_white`
    in the header of each .mha, which says where they came from too (`header`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    white = float(views.max()) or 1.0
    files = []
    for view, angle in zip(views, angles_deg, strict=True):
        image = sitk.GetImageFromArray(view.astype(np.float32))
        grey = sitk.GetImageFromArray(np.round(view.clip(0) / white * 65535).astype(np.uint16))
        for key in _GEOMETRY_KEYS:
            image.SetMetaData(key, repr(getattr(geometry, key)))
        for key, value in (header or {}).items():
            image.SetMetaData(key, value)
        image.SetMetaData("angle_deg", repr(float(angle)))
        image.SetMetaData("png_white", repr(white))
        for picture, suffix in ((image, ".mha"), (grey, ".png")):
            picture.SetSpacing((geometry.pixel_mm, geometry.pixel_mm))
            files.append(folder / f"{angle_name(angle)}{suffix}")
            sitk.WriteImage(picture, str(files[-1]), useCompression=suffix == ".png")
    return files


def angle_name(angle_deg: float) -> str:
    """``angle_000``, ``angle_045``, ``angle_022.5``: sorts by angle."""
    whole, point, part = f"{angle_deg % 360:.6f}".rstrip("0").partition(".")
    return f"angle_{whole:0>3}{point if part else ''}{part}"


def _read_npy(path: Path) -> np.ndarray:
    try:
        view = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(view, np.ndarray) or view.dtype.kind not in "fiu":
        raise UserError(f"{path}: expected one array of numbers")
    return view


def _read_image(path: Path) -> sitk.Image:
    try:
        with itk_name(path) as name:
            image = sitk.ReadImage(name)
    except (RuntimeError, OSError):
        raise UserError(f"{path}: cannot be read as a {path.suffix} picture") from None
    if image.GetDimension() != 2 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(f"{path}: expected one grey picture, rows × columns")
    return image


def _read_png(path: Path, scale: float | None) -> np.ndarray:
    if scale is None:
        raise UserError(
            f"{path}: a PNG needs its scale stated, the line integral of its brightest grey level"
        )
    if not 0 < scale < math.inf:
        raise UserError(f"{path}: expected a scale above 0, got {scale}")
    grey = sitk.GetArrayFromImage(_read_image(path))
    return grey * (scale / np.iinfo(grey.dtype).max)


def _check_header(path: Path, image: sitk.Image, angle_deg: float, geometry: Geometry) -> None:
    """`UserError` where a .mha contradicts what is expected of it; what it does not say is not asked."""
    told = {key: float(image.GetMetaData(key)) for key in _GEOMETRY_KEYS if image.HasMetaDataKey(key)}
    wrong = [
        f"{key} {value:g}, not {getattr(geometry, key):g}"
        for key, value in told.items()
        if not math.isclose(value, getattr(geometry, key), rel_tol=_TOLERANCE)
    ]
    if wrong:
        raise UserError(f"{path}: made with {'; '.join(wrong)} (geometry {geometry.name!r})")
    if image.HasMetaDataKey("angle_deg"):
        angle = float(image.GetMetaData("angle_deg"))
        if abs((angle - angle_deg + 180) % 360 - 180) > _TOLERANCE:
            raise UserError(f"{path}: is the view at {angle:g}°, given as {angle_deg:g}°")
    expected_mm = geometry.detector_mm / image.GetWidth()
    if not all(math.isclose(s, expected_mm, rel_tol=_TOLERANCE) for s in image.GetSpacing()):
        spacing = "×".join(f"{s:g}" for s in image.GetSpacing())
        raise UserError(
            f"{path}: pixels of {spacing} mm; {image.GetWidth()} columns of geometry {geometry.name!r} "
            f"are {expected_mm:g} mm each"
        )
