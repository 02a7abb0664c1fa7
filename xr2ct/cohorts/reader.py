"""A scan from its files, whatever their format."""

from __future__ import annotations

from pathlib import Path

from xr2ct.cohorts.images import read_image
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import MIN_SLICES, SUFFIXES, Source, find_sources, volume_kind
from xr2ct.cohorts.volume import NativeVolume
from xr2ct.errors import UserError


def read_volume(source: Source) -> NativeVolume:
    """The scan in HU and patient axes (feet→head, front→back, right→left); `Refused` with the reason."""
    if source.kind == "dicom":
        from xr2ct.cohorts.dicom import read_series  # here: a volume file is read without pydicom

        return read_series(source.files)
    native = _read_file(source.files[0], source.kind)
    if native.hu.shape[0] < MIN_SLICES:
        raise Refused(f"too few slices: {native.hu.shape[0]}, at least {MIN_SLICES} are needed")
    return native


def read_volume_file(path: Path) -> NativeVolume:
    """One CT: a NIfTI, MHA, NRRD or X2CT file of any size, or a folder with one usable series.

    Raises `UserError` saying what was found instead, or why it cannot be taken.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    try:
        if path.is_dir():
            return read_volume(_only_source(path))
        kind = volume_kind(path)
        if kind is None:
            known = ", ".join(SUFFIXES)
            raise UserError(f"{path}: expected one of {known}, or the folder of a DICOM series")
        return _read_file(path, kind)
    except Refused as reason:
        raise UserError(f"{path}: {reason}") from reason


def _read_file(path: Path, kind: str) -> NativeVolume:
    if kind == "x2ct":
        from xr2ct.exchange.x2ct import read_x2ct  # here: the others are read without h5py

        return read_x2ct(path)
    return read_image(path, kind)


def _only_source(folder: Path) -> Source:
    sources, refusals = find_sources(folder)
    if len(sources) == 1:
        return sources[0]
    if sources:
        found = ", ".join(f"{source.patient} ({len(source.files)} files)" for source in sources[:4])
        raise UserError(f"{folder}: expected one usable series, found {len(sources)}: {found}")
    raise UserError(f"{folder}: no usable series: {refusals[0].reason}")
