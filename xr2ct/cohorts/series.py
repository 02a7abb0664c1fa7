"""Candidate scans: what lies in a folder, whatever its files are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xr2ct.cohorts.facts import Facts
from xr2ct.cohorts.refused import Refusal

if TYPE_CHECKING:
    from xr2ct.cohorts.scan_series import Found

Kind = Literal["dicom", "nifti", "mha", "nrrd", "x2ct", "radiograph"]

SUFFIXES: dict[str, Kind] = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".mha": "mha",
    ".mhd": "mha",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".h5": "x2ct",
    ".hdf5": "x2ct",
}
"""Volume files by the end of their name; anything else is DICOM by content or nothing."""

MIN_SLICES = 16
"""Fewer are no chest: at 5 mm, the thickest in use, they cover 80 mm."""

_SAYS_NOTHING = frozenset(
    ("ct", "image", "img", "volume", "vol", "scan", "chest", "thorax", "series", "data", "ct_xray_data")
)
"""Stems that name no patient."""


@dataclass(frozen=True)
class Source:
    """One candidate scan, or the radiographs of one series."""

    patient: str
    """DICOM PatientID; of a volume file see `volume_patient`."""
    study: str
    series: str
    """SeriesInstanceUID, with `#N` where it is acquisition N of several in one series; or the file's stem."""
    kind: Kind
    files: tuple[Path, ...]
    derived: bool = False
    """DICOM marked DERIVED\\SECONDARY: reformatted from another series."""
    facts: Facts | None = None
    """None where the source was not found by a scan of a folder."""
    digest: str = ""
    """Stands for the files, by name, size and time; empty where the source was not found by a scan."""
    flaw: Refusal | None = None
    """Why it cannot be taken, as far as headers tell: slices missing, tilted, doubled."""


def find_sources(folder: Path) -> tuple[list[Source], list[Refusal]]:
    """Candidate scans under a folder, and what cannot be one, in the order of patients.

    Every patient met is in one of the two. Raises `UserError` where there is no such folder.
    """
    found = scan(folder)
    return found.sources, found.refusals


def scan(folder: Path, workers: int | None = None) -> Found:
    """Walk a folder: see `find_sources`, and also what was left out. `plan_cohort` remembers what it read."""
    from xr2ct.cohorts.scan_files import refresh
    from xr2ct.cohorts.scan_index import ScanIndex
    from xr2ct.cohorts.scan_series import group

    with ScanIndex.open(None, folder) as index:
        refresh(index, workers)
        return group(index)


def volume_kind(path: Path) -> Kind | None:
    """The format of a volume file by the end of its name, or None."""
    suffix = _suffix(path)
    return SUFFIXES[suffix] if suffix else None


def volume_source(path: Path, patient: str = "") -> Source:
    """A volume file as a source; its patient is the file's stem unless given."""
    suffix = _suffix(path)
    if not suffix:
        raise ValueError(f"{path}: no volume file")
    stem = path.name[: -len(suffix)]
    return Source(patient or stem, stem, stem, SUFFIXES[suffix], (path,))


def volume_patient(path: Path) -> str:
    """The patient of a volume file, from its path below the source's folder and from nothing else.

    A file added later thus never renames a patient. In this order: the stem of a file in the source's folder
    itself; the first folder on the way with whose name the stem begins (`sub-01/ct/sub-01_ct.nii`); the
    folders on the way, joined by "-", where the stem says nothing (`sub-01/ct.nii`); else the folders and the
    stem, so that two files never become one patient by chance.
    """
    *folders, _ = path.parts
    stem = volume_source(path).patient
    own = next((name for name in folders if _begins(stem, name)), None)
    if not folders or own:
        return own or stem
    return "-".join(folders if stem.lower() in _SAYS_NOTHING else [*folders, stem])


def _begins(stem: str, name: str) -> bool:
    """Whether a folder's name stands at a stem's beginning and says something: p1_ct has p1, p10 has not."""
    after = stem[len(name) : len(name) + 1]
    return stem.startswith(name) and not after.isalnum() and name.lower() not in _SAYS_NOTHING


def _suffix(path: Path) -> str:
    """The longest known end of a file's name; empty where there is none."""
    name = path.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")
