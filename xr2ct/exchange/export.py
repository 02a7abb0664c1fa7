"""A store's cases as files for other programs, a folder a case.

DIR/CASE/ct.nii.gz | ct.mha      int16 HU, LPS millimetres, centred on the isocentre
DIR/CASE/angle_000.mha, .png …   its X-rays, as `xr2ct project` writes them
DIR/CASE/ct_xray_data.h5         instead of both: X2CT's layout (see `exchange.x2ct`)
DIR/CASE/case.json               what the store knows of the case, and which chunks these files were made of
DIR/cases.csv                    a row a case, rebuilt from those
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from xr2ct.errors import UserError, nearest
from xr2ct.exchange.volumes import write_volume
from xr2ct.projection.views import write_views
from xr2ct.provenance import of_case
from xr2ct.run import write_atomically
from xr2ct.store import Case, Store
from xr2ct.store.layout import ct_array, exclude_file, xray_array

Format = Literal["nifti", "mha", "x2ct"]

_VOLUMES = {"nifti": "ct.nii.gz", "mha": "ct.mha"}
_UNSAID = {"row", "study", "series", "instead_of", "checksums", "radiographs"}
"""Of cases/ID.json: the store's own business."""
_COLUMNS = ("case", "cohort", "patient", "split", "format", "size", "spacing_mm", "geometry")


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    folder: Path
    written: tuple[str, ...]
    """Cases whose folder was made now."""
    kept: tuple[str, ...]
    """Cases that were there, of the same chunks."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"folder": str(self.folder), "written": list(self.written), "kept": list(self.kept)}

    def __str__(self) -> str:
        kept = f", {len(self.kept)} were there" if self.kept else ""
        return f"{self.folder}: {len(self.written)} cases written{kept}"


@dataclass(frozen=True)
class _Wanted:
    """What is written of every case."""

    format: Format
    size: int
    geometry: str | None
    angles: tuple[float, ...]

    @property
    def arrays(self) -> tuple[str, ...]:
        return (ct_array(self.size), *([xray_array(self.geometry)] if self.geometry else []))


def export_store(
    store: Path,
    to: Path,
    format: Format,
    *,
    size: int | None = None,
    geometry: str | None = None,
    cases: Sequence[str] = (),
    split: str | None = None,
) -> Exported:
    """Write cases of a store under `to`: those named, of one split, or all but the excluded.

    `size` is the store's largest unless given, `geometry` its first. A case's folder appears whole or not at
    all; one that is there, of the same chunks and format, is left alone, so the same call goes on where it
    was stopped. Raises `UserError` for what the store does not hold, and for a folder in the way that is not
    an export's; `StoreError` where a chunk is damaged.
    """
    if format not in get_args(Format):
        raise UserError(f"format {format!r}: {nearest(format, get_args(Format))}")
    held = Store.open(store)
    to = Path(to)
    if to.resolve().is_relative_to(held.path.resolve()):
        raise UserError(f"{to}: lies inside the store; export to another folder")
    if to.exists() and not to.is_dir():
        raise UserError(f"{to}: a file; expected a folder")
    wanted = _wanted(held, format, size, geometry)
    chosen = _chosen(held, cases, split)
    to.mkdir(parents=True, exist_ok=True)
    for leftover in to.glob(".*.partial"):
        shutil.rmtree(leftover)
    written, kept = [], []
    for case in tqdm(chosen, desc="export", unit="case", disable=None):
        about = _about(held, case, wanted)
        if _is_there(to / case.id, about):
            kept.append(case.id)
            continue
        _write_case(held, case, wanted, about, to)
        written.append(case.id)
    _write_table(to)
    return Exported(to, tuple(written), tuple(kept))


def _wanted(store: Store, format: Format, size: int | None, geometry: str | None) -> _Wanted:
    if size is not None and size not in store.sizes:
        raise UserError(
            f"{store.path}: no volumes of size {size} (valid: {', '.join(map(str, store.sizes))})"
        )
    name = geometry or next(iter(store.geometries), None)
    angles = store.angles(name) if name else ()
    if format == "x2ct":
        if name is None:
            raise UserError(
                f"{store.path}: no X-rays, which X2CT's layout needs; add them with `xr2ct ingest`"
            )
        from xr2ct.exchange.x2ct import FRONTAL, LATERAL  # here and below: h5py for this format alone

        angles = tuple(_first(store, name, angles, family) for family in (FRONTAL, LATERAL))
    return _Wanted(format, size or max(store.sizes), name, angles)


def _first(store: Store, geometry: str, held: Sequence[float], family: Sequence[float]) -> float:
    found = [angle for angle in family if angle in held]
    if not found:
        either = " or ".join(f"{angle:g}°" for angle in family)
        told = ", ".join(f"{angle:g}°" for angle in held)
        raise UserError(f"{store.path}: xray/{geometry} has no view at {either}, only at {told}")
    return found[0]


def _chosen(store: Store, cases: Sequence[str], split: str | None) -> list[Case]:
    by_id = {case.id: case for case in store.cases}
    for name in cases:
        if name in store.excluded:
            raise UserError(f"{store.path}: case {name} is excluded by {exclude_file(store.path)}")
        if name not in by_id:
            raise UserError(f"{store.path}: no case {name!r}: {nearest(name, by_id)}")
    among = store.cases if split is None else store.split(split)
    chosen = [case for case in among if not cases or case.id in cases]
    if not chosen:
        raise UserError(f"{store.path}: none of those cases is in the {split} split")
    return chosen


def _about(store: Store, case: Case, wanted: _Wanted) -> dict[str, Any]:
    """What case.json says."""
    geometry = store.geometries[wanted.geometry].as_attributes() if wanted.geometry else None
    return {
        **{key: value for key, value in case.attributes.items() if key not in _UNSAID},
        "case": case.id,
        "patient": case.patient,
        "cohort": store.cohort,
        "split": case.split,
        "format": wanted.format,
        "size": wanted.size,
        "cube_mm": store.cube_mm,
        "geometry": geometry,
        "angles_deg": list(wanted.angles),
        "made_of": {array: case.attributes["checksums"][array] for array in wanted.arrays},
    }


def _is_there(folder: Path, about: dict[str, Any]) -> bool:
    """Whether a case's folder is whole and of the same; `UserError` where somebody else made it."""
    if not folder.exists():
        return False
    try:
        return bool(json.loads((folder / "case.json").read_text(encoding="utf-8")) == about)
    except (OSError, ValueError):
        raise UserError(f"{folder}: in the way, and not of an export (no case.json)") from None


def _write_case(store: Store, case: Case, wanted: _Wanted, about: dict[str, Any], to: Path) -> None:
    """Beside its place first, then renamed."""
    place = to / f".{case.id}.{uuid.uuid4().hex}.partial"
    place.mkdir()
    hu = store.volume(case, wanted.size)
    views = store.xray(case, wanted.geometry, wanted.angles) if wanted.geometry else None
    geometry = store.geometries[wanted.geometry] if wanted.geometry else None
    if wanted.format == "x2ct":
        from xr2ct.exchange.x2ct import FILE, write_x2ct

        assert views is not None and geometry is not None  # `_wanted` saw to it
        frontal, lateral = wanted.angles
        write_x2ct(place / FILE, hu, store.cube_mm, views, (frontal, lateral), geometry)
    else:
        told = [of_case(store.cohort, case.id, about["made_of"][array]) for array in wanted.arrays]
        write_volume(hu, store.cube_mm, place / _VOLUMES[wanted.format], told[0])
        if views is not None and geometry is not None:
            write_views(place, views, wanted.angles, geometry, told[1])
    write_atomically(place / "case.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
    if (to / case.id).exists():
        shutil.rmtree(to / case.id)
    place.rename(to / case.id)


def _write_table(to: Path) -> None:
    """cases.csv of every case in the folder, of earlier calls too."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_COLUMNS)
    for file in sorted(to.glob("*/case.json")):
        about = json.loads(file.read_text(encoding="utf-8"))
        geometry = (about["geometry"] or {}).get("name", "")
        row = {**about, "spacing_mm": f"{about['cube_mm'] / about['size']:g}", "geometry": geometry}
        lines.writerow([row[column] for column in _COLUMNS])
    write_atomically(to / "cases.csv", text.getvalue())
