"""Names, files and shapes in a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xr2ct.errors import UserError
from xr2ct.projection.geometry import Geometry

SCHEMA = 1
CT_FILL = -32768
"""HU that no scanner gives, so that a row never written cannot be taken for air."""


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


def plan_file(store: Path) -> Path:
    return store / "plan.json"


def refused_file(store: Path) -> Path:
    return store / "refused.csv"


def exclude_file(store: Path) -> Path:
    return store / "exclude.csv"


def group_attributes(store: Path) -> dict[str, Any]:
    """What a store says of itself; `UserError` where it is none, or one of another schema."""
    file = store / "zarr.json"
    if not file.is_file():
        raise UserError(
            f"{store}: not a store (expected a folder made by `xr2ct ingest`, with a zarr.json in it)"
        )
    try:
        attributes: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")).get("attributes", {})
    except ValueError:
        raise UserError(f"{file}: damaged (not JSON); ingest its source again into a new store") from None
    if "xr2ct_schema" not in attributes:
        raise UserError(f"{store}: a Zarr group, but not one that `xr2ct ingest` made")
    check_schema(store, attributes)
    return attributes


def check_schema(store: Path, values: dict[str, Any]) -> None:
    """`UserError` saying what to do where a store is of another schema than this version's."""
    if values["xr2ct_schema"] != SCHEMA:
        raise UserError(
            f"{store}: schema {values['xr2ct_schema']}, this version reads schema {SCHEMA}: "
            "ingest its source again into a new store, or use the version of xr2ct that wrote it"
        )


def array_attributes(store: Path, array: str, shape: Sequence[int], dtype: str) -> dict[str, Any]:
    """An array's own attributes, once its rows are known to be raw chunks of `shape` and `dtype`."""
    file = store / array / "zarr.json"
    if not file.is_file():
        raise UserError(f"{store}: its {array} is not there: ingest its source again")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    raw = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if metadata["data_type"] != dtype or chunk != [1, *shape] or metadata["codecs"] != raw:
        raise UserError(f"{store}: its {array} is not in uncompressed {dtype} chunks of {(1, *shape)}")
    return dict(metadata["attributes"])
