"""Series from the index of a scan: grouped by what headers say, wherever their files lie."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from xr2ct.cohorts.facts import SAME_PLACE_MM, Facts, gaps_mm, usual
from xr2ct.cohorts.headers import Identity
from xr2ct.cohorts.refused import Refusal, Refused
from xr2ct.cohorts.scan_index import BROKEN, IMAGE, VOLUME, Row, ScanIndex
from xr2ct.cohorts.series import MIN_SLICES, Kind, Source, volume_kind, volume_patient, volume_source

log = logging.getLogger(__name__)

RADIOGRAPHS = ("DX", "CR")

Key = tuple[str, str, str]
"""Patient, study, series."""


@dataclass
class Found:
    """Everything met in a folder."""

    sources: list[Source] = field(default_factory=list)
    radiographs: list[Source] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    left_out: list[Refusal] = field(default_factory=list)
    """Images that are no CT scan: localizers, dose pages, other modalities. No fault of the patient's."""
    others: list[tuple[Source, Refusal]] = field(default_factory=list)
    """The series that are in `refusals` and `left_out`."""


def group(index: ScanIndex) -> Found:
    """The series of an index, in the order of patients. Holds the rows of one series at a time."""
    identities = index.identities(Identity)
    found = Found()
    scans: dict[Key, list[int]] = defaultdict(list)
    pictures: dict[Key, list[int]] = defaultdict(list)
    other: dict[tuple[Key, str], list[int]] = defaultdict(list)
    for number, one in identities.items():
        key = (one.patient, one.study, one.series)
        if not one.patient:
            continue
        if not one.left_out:
            scans[key].append(number)
            continue
        if one.modality in RADIOGRAPHS and one.left_out.startswith("modality"):
            pictures[key].append(number)
        other[key, one.left_out].append(number)
    folders: dict[str, set[Key]] = defaultdict(set)
    for key, numbers in sorted(scans.items()):
        rows = index.rows(IMAGE, numbers)
        kept = _once(rows)
        if len(kept) < len(rows):
            reason = f"copies of slices that are there already ({len(rows) - len(kept)} files)"
            found.left_out.append(Refusal(key[0], key[2], reason))
        for source, own in _scan_sources(index.root, key, kept, identities):
            found.sources.append(source)
            for row in own:
                folders[row.folder].add((source.patient, source.study, source.series))
    for key, numbers in sorted(pictures.items()):
        rows = _once(index.rows(IMAGE, numbers))
        found.radiographs.append(_source(index.root, key, "radiograph", rows, identities))
    _add_volumes(index, found)
    _refuse_anonymous(index, identities, found)
    _refuse_spoilt(index, folders, found)
    _leave_out(index, other, identities, found)
    _refuse_empty(index, found)
    found.sources.sort(key=_key)
    found.refusals.sort(key=lambda r: (r.patient, r.series, r.reason))
    return found


def _key(source: Source) -> Key:
    return (source.patient, source.study, source.series)


def _once(rows: Sequence[Row]) -> list[Row]:
    """Without the copies: the same SOPInstanceUID, place and size, in whatever folder.

    The place, since some programs give all slices of a series one SOPInstanceUID.
    """
    seen = set()
    kept = []
    for row in rows:
        copy = (row.instance, row.position, row.size)
        if row.instance is None or copy not in seen:
            kept.append(row)
            seen.add(copy)
    return kept


def _scan_sources(
    root: Path, key: Key, rows: Sequence[Row], identities: Mapping[int, Identity]
) -> Iterable[tuple[Source, Sequence[Row]]]:
    """A series as one scan, or as one for each acquisition where they lie in the same places."""
    parts = _acquisitions(rows, identities)
    for number, part in parts.items():
        patient, study, series = key
        own = (patient, study, f"{series}#{number}" if len(parts) > 1 else series)
        source = _source(root, own, "dicom", part, identities)
        yield replace(source, flaw=_flaw(source, part, identities)), part


def _acquisitions(rows: Sequence[Row], identities: Mapping[int, Identity]) -> dict[int | None, list[Row]]:
    """Rows by acquisition where that tells slices at the same place apart; all together elsewhere."""
    together: dict[int | None, list[Row]] = {None: list(rows)}
    if not _doubled(rows, identities):
        return together
    parts: dict[int | None, list[Row]] = defaultdict(list)
    for row in rows:
        parts[identities[row.header].acquisition].append(row)
    if None in parts or any(_doubled(part, identities) for part in parts.values()):
        return together
    return dict(sorted(parts.items(), key=lambda part: part[0] or 0))


def _doubled(rows: Sequence[Row], identities: Mapping[int, Identity]) -> bool:
    gaps = _gaps(rows, identities)
    return gaps is not None and bool((gaps < SAME_PLACE_MM).any())


def _gaps(rows: Sequence[Row], identities: Mapping[int, Identity]) -> np.ndarray | None:
    """Gaps between slices in mm; None where there are none, or a header does not say where its slice is."""
    orientation = identities[rows[0].header].orientation
    positions = [row.position for row in rows if row.position]
    if orientation is None or len(positions) != len(rows) or len(rows) < 2:
        return None
    return gaps_mm(positions, orientation)


def _source(
    root: Path, key: Key, kind: Kind, rows: Sequence[Row], identities: Mapping[int, Identity]
) -> Source:
    own = [identities[row.header] for row in rows]
    gaps = _gaps(rows, identities)
    pixel = usual(one.pixel_mm for one in own)
    contrasts = {one.contrast for one in own}
    facts = Facts(
        modality=usual(one.modality for one in own) or "",
        kernel=usual(one.kernel for one in own if one.kernel) or "",
        contrast=True if True in contrasts else None if None in contrasts else False,
        thickness_mm=usual(one.thickness_mm for one in own),
        spacing_mm=(float(np.median(gaps)), pixel[0], pixel[1]) if gaps is not None and pixel else None,
        slices=len(rows),
        date=min((one.date for one in own if one.date), default=""),
    )
    files = tuple(root / row.folder / row.name for row in rows)
    return Source(*key, kind, files, any(one.derived for one in own), facts, _digest(rows))


def _digest(rows: Sequence[Row]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        text = f"{row.folder}/{row.name}\0{row.size}\0{row.mtime_ns}\0"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _flaw(source: Source, rows: Sequence[Row], identities: Mapping[int, Identity]) -> Refusal | None:
    """What `read_series` would refuse of the slices' places, without opening a file."""
    from xr2ct.cohorts.dicom import Slice, check_alike, stack  # here: not for volume files

    if len(rows) < MIN_SLICES:
        return None
    slices = []
    for row in rows:
        one = identities[row.header]
        if not (row.position and one.orientation and one.pixel_mm and one.shape):
            return Refusal(
                source.patient, source.series, "a header does not say where its slice lies", row.name
            )
        slices.append(
            Slice(
                Path(row.name),
                one.shape,
                (one.pixel_mm[0], one.pixel_mm[1]),
                np.array(row.position),
                np.reshape(one.orientation, (2, 3)),
                one.tilt_deg,
                slope=1.0,
                intercept=0.0,
                padding=(),
            )
        )
    try:
        check_alike(list({row.header: one for row, one in zip(rows, slices, strict=True)}.values()))
        stack(slices)
    except Refused as refused:
        return Refusal(source.patient, source.series, refused.reason, refused.where)
    return None


def _add_volumes(index: ScanIndex, found: Found) -> None:
    """Volume files; of two with one path but for the suffix the first."""
    known: set[Key] = set()
    for row in index.rows(VOLUME):
        path = Path(row.folder, row.name)
        source = volume_source(index.root / path, volume_patient(path))
        source = replace(source, facts=index.facts(row.header), digest=_digest([row]))
        if _key(source) in known:
            line = Refusal(
                source.patient, source.series, "another file has its name but for the suffix", row.name
            )
            found.left_out.append(line)
            found.others.append((source, line))
            continue
        known.add(_key(source))
        found.sources.append(source)


def _top(folder: str, index: ScanIndex) -> str:
    """The root's direct subfolder in which a folder lies; the root's own name for itself."""
    return Path(folder).parts[0] if folder else index.root.resolve().name


def _refuse_anonymous(index: ScanIndex, identities: Mapping[int, Identity], found: Found) -> None:
    """Without a PatientID two patients would be one, and one could stand in two splits."""
    nameless = [number for number, one in identities.items() if not one.patient]
    rows = index.rows(IMAGE, nameless) if nameless else []
    for name, count in Counter(_top(row.folder, index) for row in rows).items():
        found.refusals.append(Refusal(name, "", f"{count} DICOM images without PatientID"))


def _refuse_spoilt(index: ScanIndex, folders: Mapping[str, set[Key]], found: Found) -> None:
    """A file that cannot be read spoils the one series beside it, whose slice it may be: a gap at either
    end would not show. Where there is no one series, its folder is refused."""
    by_folder: dict[str, list[Row]] = defaultdict(list)
    for row in index.rows(BROKEN):
        path = Path(row.folder, row.name)
        if volume_kind(path):
            source = volume_source(index.root / path, volume_patient(path))
            line = Refusal(source.patient, source.series, row.reason, row.name)
            found.refusals.append(line)
            found.others.append((source, line))
        else:
            by_folder[row.folder].append(row)
    for folder, rows in by_folder.items():
        reason = rows[0].reason + (f" (and {len(rows) - 1} more)" if len(rows) > 1 else "")
        where = rows[0].name or Path(folder).name
        keys = folders.get(folder, set())
        beside = [source for source in found.sources if _key(source) in keys] if len(keys) == 1 else []
        if beside:
            found.sources.remove(beside[0])
            line = Refusal(beside[0].patient, beside[0].series, reason, where)
            found.others.append((beside[0], line))
        else:
            line = Refusal(_top(folder, index), "", reason, where)
        found.refusals.append(line)


def _leave_out(
    index: ScanIndex,
    other: Mapping[tuple[Key, str], list[int]],
    identities: Mapping[int, Identity],
    found: Found,
) -> None:
    """List what is no CT scan; a patient who has nothing else is refused with the reasons."""
    known = {s.patient for s in found.sources} | {r.patient for r in found.refusals}
    reasons: dict[str, list[str]] = defaultdict(list)
    pictures = {_key(source) for source in found.radiographs}
    for (key, left_out), numbers in sorted(other.items()):
        source = _source(index.root, key, "dicom", index.rows(IMAGE, numbers), identities)
        line = Refusal(source.patient, source.series, f"{left_out} ({len(source.files)} files)")
        if key not in pictures:
            found.left_out.append(line)
            found.others.append((source, line))
        if line.patient not in known:
            reasons[line.patient].append(line.reason)
    for patient, lines in reasons.items():
        found.refusals.append(Refusal(patient, "", f"no CT series: {', '.join(dict.fromkeys(lines))}"))


def _refuse_empty(index: ScanIndex, found: Found) -> None:
    """Subfolders without an image: somebody may think that a patient is in there."""
    met = {_top(top, index) if top else index.root.resolve().name for top in index.tops()}
    found.refusals += [Refusal(name, "", "no image found") for name in index.subfolders() - met]
    if not met and not found.refusals:
        found.refusals.append(Refusal(index.root.resolve().name, "", f"no image among {index.files()} files"))
