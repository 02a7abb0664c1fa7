"""Names, files and shapes in a store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xr2ct.errors import UserError, WorkFailed
from xr2ct.projection.geometry import Geometry

SCHEMA = 1
CT_FILL = -32768
"""HU that no scanner gives, so that a row never written cannot be taken for air."""

REPAIR = "the `xr2ct ingest` that made it, with --repair, writes it again from the source"


class StoreError(WorkFailed):
    """A chunk or another file of a store that is missing or damaged; names the case where it is one's."""


@dataclass(frozen=True)
class XraySet:
    """What one xray/GEOMETRY array holds."""

    geometry: Geometry
    angles: tuple[float, ...]

    def as_attributes(self) -> dict[str, Any]:
        """The array's attributes."""
        return {**self.geometry.as_attributes(), "angles_deg": list(self.angles)}

    @classmethod
    def from_attributes(cls, values: dict[str, Any]) -> XraySet:
        """The inverse of `as_attributes`."""
        values = dict(values)
        angles = tuple(float(a) for a in values.pop("angles_deg"))
        return cls(Geometry(**values), angles)


def ct_array(size: int) -> str:
    return f"ct/{size}"


def xray_array(geometry: str) -> str:
    return f"xray/{geometry}"


def chunk_file(store: Path, array: str, row: int) -> Path:
    """Zarr v3's default chunk key for an array whose chunks are whole rows."""
    return store / array / "c" / str(row) / "0" / "0" / "0"


def case_file(store: Path, case_id: str) -> Path:
    return store / "cases" / f"{case_id}.json"


def case_files(store: Path) -> list[Path]:
    """The cases/ID.json that are there, without what a killed writer left."""
    return sorted((store / "cases").glob("[!.]*.json"))


def picture_checksums(about: Mapping[str, Any]) -> dict[str, str]:
    """Array → checksum of a case's radiographs, from its cases/ID.json."""
    return {radiograph_array(p["name"]): p["sha256"] for p in about.get("radiographs", [])}


def plan_file(store: Path) -> Path:
    return store / "plan.json"


def refused_file(store: Path) -> Path:
    return store / "refused.csv"


def exclude_file(store: Path) -> Path:
    return store / "exclude.csv"


def radiograph_array(name: str) -> str:
    return f"radiograph/{name}"


def radiograph_file(store: Path, name: str) -> Path:
    """The one chunk of a picture's array."""
    return store / radiograph_array(name) / "c" / "0" / "0"


def read_json(store: Path, file: Path) -> dict[str, Any] | None:
    """One of a store's own JSON files, None where it is not there; `StoreError` where it is damaged."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        values = None
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(values, dict):
        raise StoreError(f"{store}: its {file.relative_to(store)} is damaged (not JSON): {REPAIR}")
    return values


def group_attributes(store: Path) -> dict[str, Any]:
    """What a store says of itself.

    Raises `UserError` where it is none, or one of another schema, and `StoreError` where its zarr.json is
    lost or damaged.
    """
    values = read_json(store, store / "zarr.json")
    if values is None and is_remains(store):
        raise StoreError(f"{store}: its zarr.json is missing: {REPAIR}")
    if values is None:
        raise UserError(
            f"{store}: not a store (expected a folder made by `xr2ct ingest`, with a zarr.json in it)"
        )
    attributes: dict[str, Any] = values.get("attributes", {})
    if "xr2ct_schema" not in attributes:
        raise UserError(f"{store}: a Zarr group, but not one that `xr2ct ingest` made")
    check_schema(store, attributes)
    return attributes


def is_remains(folder: Path) -> bool:
    """Whether a folder holds what is left of a store, and nothing else."""
    own = {"zarr.json", "plan.json", "refused.csv", "exclude.csv", "cases", "ct", "xray", "radiograph"}
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")} if folder.is_dir() else set()
    return names <= own and bool(names & {"zarr.json", "plan.json", "cases", "ct", "xray"})


def check_schema(store: Path, values: dict[str, Any]) -> None:
    """`UserError` saying what to do where a store is of another schema than this version's."""
    if values["xr2ct_schema"] != SCHEMA:
        raise UserError(
            f"{store}: schema {values['xr2ct_schema']}, this version reads schema {SCHEMA}: "
            "ingest its source again into a new store, or use the version of xr2ct that wrote it"
        )


def array_attributes(store: Path, array: str, shape: Sequence[int], dtype: str) -> dict[str, Any]:
    """An array's own attributes, once its rows are known to be raw chunks of `shape` and `dtype`."""
    metadata = array_metadata(store, array)
    chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    raw = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if metadata["data_type"] != dtype or chunk != [1, *shape] or metadata["codecs"] != raw:
        raise UserError(f"{store}: its {array} is not in uncompressed {dtype} chunks of {(1, *shape)}")
    return dict(metadata["attributes"])


def array_metadata(store: Path, array: str) -> dict[str, Any]:
    """An array's zarr.json; `StoreError` where it is missing or damaged."""
    metadata = read_json(store, store / array / "zarr.json")
    if metadata is None:
        raise StoreError(f"{store}: the zarr.json of its {array} is missing: {REPAIR}")
    return metadata


def xray_set(store: Path, geometry: str) -> XraySet:
    """What an xray/GEOMETRY array says it holds."""
    return XraySet.from_attributes(array_metadata(store, xray_array(geometry))["attributes"])
