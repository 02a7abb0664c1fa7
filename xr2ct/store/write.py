"""Writing a store: rows laid out first, whole chunks and one file a case next, visible last.

Nothing here is seen by a reader before `publish`. Chunks of different rows may be written by different
processes at once; `lay_out` and `publish` belong to one process alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from xr2ct.run import write_atomically
from xr2ct.store import layout
from xr2ct.store.layout import XraySet, ct_array, xray_array


def lay_out(
    store: Path,
    cohort: str,
    cube_mm: float,
    rows: int,
    sizes: Sequence[int],
    xrays: Sequence[XraySet],
    *,
    remove_table: bool = False,
    salt_id: str = "",
) -> None:
    """Create what is missing of the group and its arrays, and grow those that have fewer rows."""
    if not (store / "zarr.json").is_file():
        hidden: dict[str, Any] = {"cases": [], "sizes": [], "geometries": []}
        about = {"xr2ct_schema": layout.SCHEMA, "cohort": cohort, "cube_mm": cube_mm}
        made = {"remove_table": remove_table, "salt_id": salt_id}
        zarr.create_group(store, zarr_format=3, attributes={**about, **made, **hidden})
    for parent in ("ct", "xray", "radiograph"):
        if (store / parent).is_dir():
            zarr.open_group(store / parent, mode="a", zarr_format=3)
    group = zarr.open_group(store, mode="r+")
    for size in sizes:
        axes = ("case", "z", "y", "x")
        _array(group, ct_array(size), (rows, size, size, size), "int16", layout.CT_FILL, axes, {"unit": "HU"})
    for xray in xrays:
        shape = (rows, len(xray.angles), xray.geometry.pixels, xray.geometry.pixels)
        axes = ("case", "view", "row", "col")
        name = xray_array(xray.geometry.name)
        _array(group, name, shape, "float32", float("nan"), axes, xray.as_attributes())


def write_chunk(store: Path, array: str, row: int, values: np.ndarray) -> str:
    """Write a whole row and return its SHA-256, of the chunk's bytes as they should lie on disk."""
    target = zarr.open_array(store / array, mode="r+")
    assert target.shape[1:] == values.shape
    assert target.dtype == values.dtype, f"{array}: {values.dtype}"
    target[row] = values
    # On disk before the case's file says so: a node that loses power must not leave a case of empty chunks.
    with layout.chunk_file(store, array, row).open("rb") as file:
        os.fsync(file.fileno())
    return hashlib.sha256(values.tobytes()).hexdigest()


def lay_out_radiographs(store: Path) -> None:
    """Create the group that the pictures' arrays lie in."""
    zarr.open_group(store / "radiograph", mode="a", zarr_format=3)


def write_radiograph(store: Path, name: str, pixels: np.ndarray) -> str:
    """Write a picture (row, col) as an array of its own and return the SHA-256 of its chunk's bytes."""
    array = zarr.create_array(
        store / layout.radiograph_array(name),
        shape=pixels.shape,
        chunks=pixels.shape,
        dtype=pixels.dtype,
        compressors=None,
        fill_value=0,
        dimension_names=("row", "col"),
        config={"write_empty_chunks": True},
        overwrite=True,
    )
    array[:] = pixels
    with layout.radiograph_file(store, name).open("rb") as file:
        os.fsync(file.fileno())
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def retire(store: Path, geometry: str) -> None:
    """Take an xray/GEOMETRY array out of a store, to be laid out and filled anew with other views.

    First it is no longer visible, then no case counts on it, then it goes: killed at any moment, no reader
    takes old views for new ones, and called again it ends what it began.
    """
    group = zarr.open_group(store, mode="r+")
    visible = [str(name) for name in group.attrs["geometries"]]  # type: ignore[union-attr]
    if geometry in visible:
        group.attrs["geometries"] = [name for name in visible if name != geometry]
    array = xray_array(geometry)
    for file in layout.case_files(store):
        case = read_case(store, file.stem)
        if case["checksums"].pop(array, None):
            write_case(store, file.stem, case)
    away = store / "xray" / f".{geometry}.{uuid.uuid4().hex}"
    (store / array).rename(away)
    shutil.rmtree(away)


def write_case(store: Path, case_id: str, attributes: Mapping[str, Any]) -> None:
    """Replace cases/ID.json whole: from here on the case's chunks are trusted."""
    write_atomically(layout.case_file(store, case_id), case_text(attributes))


def case_text(attributes: Mapping[str, Any]) -> str:
    """What cases/ID.json holds, letter by letter."""
    return json.dumps(attributes, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_case(store: Path, case_id: str) -> dict[str, Any]:
    """cases/ID.json, empty while the case has none; `StoreError` where it is damaged."""
    return layout.read_json(store, layout.case_file(store, case_id)) or {}


def publish(
    store: Path, cases: Sequence[Mapping[str, Any]], sizes: Iterable[int], geometries: Iterable[str]
) -> None:
    """Make rows visible: `cases` with id, patient, split and row, in row order."""
    visible: dict[str, Any] = {
        "cases": [dict(c) for c in cases],
        "sizes": list(sizes),
        "geometries": list(geometries),
    }
    group = zarr.open_group(store, mode="r+")
    if {k: group.attrs[k] for k in visible} != visible:
        group.attrs.update(visible)


def sweep(store: Path) -> None:
    """Remove the temporary files that a killed writer left behind."""
    arrays = ("zarr.*.partial", "*/zarr.*.partial", "*/*/zarr.*.partial", "*/*/c/**/*.partial")
    for pattern in (*arrays, ".plan.json.*", ".exclude.csv.*", ".refused.csv.*", "cases/.*.json.*"):
        for leftover in store.glob(pattern):
            leftover.unlink()
    for retired in (store / "xray").glob(".*"):
        shutil.rmtree(retired)


def _array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    fill: float,
    axes: tuple[str, ...],
    attributes: Mapping[str, Any],
) -> None:
    if name not in group:
        group.create_array(
            name,
            shape=shape,
            chunks=(1, *shape[1:]),
            dtype=dtype,
            compressors=None,
            fill_value=fill,
            dimension_names=axes,
            attributes=dict(attributes),
            # A chunk that happens to be all fill is still a chunk, never a hole.
            config={"write_empty_chunks": True},
        )
        return
    array = group[name]
    assert isinstance(array, zarr.Array)
    if array.shape[0] < shape[0]:
        array.resize(shape)
