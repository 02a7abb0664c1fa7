"""What lies in a folder: candidate scans, whatever their files are called."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xr2ct.cohorts.refused import Refusal
from xr2ct.errors import UserError

if TYPE_CHECKING:
    from xr2ct.cohorts.headers import Identity

log = logging.getLogger(__name__)

Kind = Literal["dicom", "nifti", "mha", "nrrd"]

SUFFIXES: dict[str, Kind] = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".mha": "mha",
    ".mhd": "mha",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
}
"""Volume files by the end of their name; anything else is DICOM by content or nothing."""

MIN_SLICES = 16
"""Fewer are no chest: at 5 mm, the thickest in use, they cover 80 mm."""


@dataclass(frozen=True)
class Source:
    """One candidate scan."""

    patient: str
    """DICOM PatientID, or the file's stem (with its folders, where the stem occurs twice)."""
    study: str
    series: str
    """SeriesInstanceUID, or the file's stem."""
    kind: Kind
    files: tuple[Path, ...]
    derived: bool = False
    """DICOM marked DERIVED\\SECONDARY: reformatted from another series."""


@dataclass
class Found:
    """Everything met in a folder."""

    sources: list[Source] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    left_out: list[Refusal] = field(default_factory=list)
    """Images that are no CT scan: localizers, dose pages, other modalities. No fault of the patient's."""


def find_sources(folder: Path) -> tuple[list[Source], list[Refusal]]:
    """Candidate scans under a folder, and what cannot be one, in the order of patients.

    Every patient met is in one of the two. Raises `UserError` where there is no such folder.
    """
    found = scan(folder)
    return found.sources, found.refusals


def choose(sources: Sequence[Source]) -> tuple[list[Source], list[Refusal]]:
    """One scan a patient, and the others as "not chosen".

    The series with the most slices, an acquired one before a reformatted one, one with slices enough before
    either (bolus tracking has a few); ties by UID.
    """
    by_patient: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        by_patient[source.patient].append(source)
    chosen, others = [], []
    for patient in sorted(by_patient):
        best, *rest = sorted(by_patient[patient], key=_preference)
        chosen.append(best)
        reason = f"not chosen: another series has {len(best.files)} files"
        others += [Refusal(patient, s.series, f"{reason}, this one {len(s.files)}") for s in rest]
    return chosen, others


def _preference(source: Source) -> tuple[bool, bool, int, str]:
    few = source.kind == "dicom" and len(source.files) < MIN_SLICES
    return (few, source.derived, -len(source.files), source.series)


def scan(folder: Path) -> Found:
    """Walk a folder: see `find_sources`, and also what was left out."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (expected one with DICOM, NIfTI, MHA or NRRD inside)")
    files = list(_walk(folder))
    volumes = [path for path in files if volume_kind(path)]
    images, broken = _read_headers(path for path in files if not volume_kind(path))
    met = {_top(path, folder) for path in [*volumes, *images, *broken]}
    found = Found(_volume_sources(folder, volumes))
    _refuse_anonymous(folder, images, found)
    found.sources += _dicom_sources(images)
    _refuse_spoilt(folder, broken, found)
    _leave_out(images, found)
    found.refusals += [Refusal(name, "", "no image found") for name in _subfolders(folder) - met]
    if not met and not found.refusals:
        found.refusals.append(Refusal(folder.resolve().name, "", f"no image among {len(files)} files"))
    for line in found.left_out:
        log.debug("%s: left out: %s", line.patient, line.reason)
    found.sources.sort(key=lambda s: (s.patient, s.series))
    found.refusals.sort(key=lambda r: (r.patient, r.series, r.reason))
    return found


def volume_kind(path: Path) -> Kind | None:
    """The format of a volume file by the end of its name, or None."""
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def volume_source(path: Path, patient: str = "") -> Source:
    """A volume file as a source; its patient is the file's stem unless given."""
    kind = volume_kind(path)
    assert kind
    suffix = max((s for s in SUFFIXES if path.name.lower().endswith(s)), key=len)
    stem = path.name[: -len(suffix)]
    return Source(patient or stem, stem, stem, kind, (path,))


def _walk(folder: Path) -> Iterator[Path]:
    """Files in the order of their paths, through symbolic links but never twice into a folder."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _top(path: Path, folder: Path) -> str:
    """The folder's direct subfolder in which a path lies; its own name for a file directly in it."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else folder.resolve().name


def _subfolders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _read_headers(files: Iterable[Path]) -> tuple[dict[Path, Identity], dict[Path, str]]:
    """The DICOM images among files, and the files that should be some and cannot be read, with the reason."""
    from xr2ct.cohorts.headers import Unreadable, identify  # here: a volume file is read without pydicom

    images, broken = {}, {}
    for path in files:
        try:
            image = identify(path)
        except Unreadable as error:
            broken[path] = str(error)
            continue
        if image:
            images[path] = image
    return images, broken


def _dicom_sources(images: Mapping[Path, Identity]) -> list[Source]:
    groups: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    for path, image in images.items():
        if not image.left_out:
            groups[image.patient, image.study, image.series].append(path)
    return [
        Source(*key, "dicom", tuple(paths), derived=any(images[path].derived for path in paths))
        for key, paths in groups.items()
    ]


def _volume_sources(folder: Path, volumes: Sequence[Path]) -> list[Source]:
    """Volume files by patient: the stem, or the folders on the way where another file has the same stem."""
    sources = [volume_source(path) for path in volumes]
    count = Counter(source.patient for source in sources)
    return [
        replace(source, patient="-".join(path.relative_to(folder).parts[:-1]) or source.patient)
        if count[source.patient] > 1
        else source
        for source, path in zip(sources, volumes, strict=True)
    ]


def _refuse_spoilt(folder: Path, broken: Mapping[Path, str], found: Found) -> None:
    """A file that cannot be read spoils the one series beside it, whose slice it may be: a gap at either
    end would not show. Where there is no one series, its folder is refused."""
    by_folder: dict[Path, list[str]] = defaultdict(list)
    for path, reason in broken.items():
        by_folder[path.parent].append(f"{path.name}: {reason}")
    for parent, reasons in by_folder.items():
        beside = [s for s in found.sources if s.kind == "dicom" and any(f.parent == parent for f in s.files)]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        if len(beside) == 1:
            found.sources.remove(beside[0])
            found.refusals.append(Refusal(beside[0].patient, beside[0].series, reasons[0] + more))
        else:
            found.refusals.append(Refusal(_top(parent / "x", folder), "", reasons[0] + more))


def _leave_out(images: Mapping[Path, Identity], found: Found) -> None:
    """List what is no CT scan; a patient who has nothing else is refused with the reasons."""
    counts = Counter((i.patient, i.series, i.left_out) for i in images.values() if i.left_out)
    found.left_out = [
        Refusal(patient, series, f"{reason} ({count} files)")
        for (patient, series, reason), count in sorted(counts.items())
    ]
    known = {s.patient for s in found.sources} | {r.patient for r in found.refusals}
    reasons: dict[str, list[str]] = defaultdict(list)
    for line in found.left_out:
        if line.patient not in known:
            reasons[line.patient].append(line.reason)
    for patient, lines in reasons.items():
        found.refusals.append(Refusal(patient, "", f"no CT series: {', '.join(dict.fromkeys(lines))}"))


def _refuse_anonymous(folder: Path, images: dict[Path, Identity], found: Found) -> None:
    """Without a PatientID two patients would be one, and one could stand in two splits."""
    anonymous = [path for path, image in images.items() if not image.patient]
    for path in anonymous:
        del images[path]
    for name, count in Counter(_top(path, folder) for path in anonymous).items():
        found.refusals.append(Refusal(name, "", f"{count} DICOM images without PatientID"))
