"""What is missing or damaged in a store, file by file, however much of it is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xr2ct.store import layout
from xr2ct.store.layout import StoreError
from xr2ct.store.read import chunk_problem


def damage(store: Path) -> list[str]:
    """Everything that is wrong with a store: a line a file, naming the case where it is one's.

    Chunks are checked of every case whose own file is whole, excluded ones too. Raises `UserError` where
    there is no store, nor what is left of one.
    """
    store = Path(store)
    lines = []
    attributes: dict[str, Any] = {}
    try:
        attributes = layout.group_attributes(store)
    except StoreError as error:
        lines.append(str(error))
    lines += _metadata_damage(store, attributes)
    visible = {c["id"]: c["row"] for c in attributes.get("cases", [])}
    held = {p.stem for p in layout.case_files(store)}
    cases = {}
    for case in sorted(held | set(visible), key=lambda c: (visible.get(c, 0), c)):
        try:
            about = layout.read_json(store, layout.case_file(store, case))
            if about is None:
                raise StoreError(f"{store}: its cases/{case}.json is missing: {layout.REPAIR}")
            cases[case] = {**about, "row": visible.get(case, about.get("row"))}
        except StoreError as error:
            lines.append(f"case {case}: {error}")
    for case, wrong in damaged_chunks(store, cases).items():
        lines += [f"{store}: case {case}: its chunk of {name} {problem}" for name, problem in wrong.items()]
    return lines


def damaged_chunks(store: Path, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Case → array, or `radiograph/NAME`, → what is wrong with its chunk; `cases` are by cases/ID.json."""
    chunks = [(case, *chunk) for case, about in cases.items() for chunk in _chunks(store, about)]
    wrong: dict[str, dict[str, str]] = {}
    # Threads, since both reading and hashing leave Python's lock.
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda chunk: chunk_problem(chunk[2], chunk[3]), chunks)
        for (case, array, _, _), problem in zip(chunks, found, strict=True):
            if problem:
                wrong.setdefault(case, {})[array] = problem
    return wrong


def _chunks(store: Path, about: Mapping[str, Any]) -> Iterator[tuple[str, Path, str]]:
    for array, checksum in about.get("checksums", {}).items():
        yield array, layout.chunk_file(store, array, about["row"]), checksum
    for picture in about.get("radiographs", []):
        array = layout.radiograph_array(picture["name"])
        yield array, layout.radiograph_file(store, picture["name"]), picture["sha256"]


def metadata_files(store: Path) -> list[Path]:
    """The zarr.json files of groups and arrays, and the plan, as far as they are there."""
    names = ("zarr.json", "plan.json", "*/zarr.json", "*/*/zarr.json")
    return sorted(file for name in names for file in store.glob(name))


def _metadata_damage(store: Path, attributes: Mapping[str, Any]) -> list[str]:
    arrays = [
        *map(layout.ct_array, attributes.get("sizes", [])),
        *map(layout.xray_array, attributes.get("geometries", [])),
    ]
    arrays += [str(folder.relative_to(store)) for folder in store.glob("*/*") if (folder / "c").is_dir()]
    parents = {array.split("/")[0] for array in arrays}
    wanted = {layout.plan_file(store)} | {store / name / "zarr.json" for name in (*parents, *arrays)}
    lines = []
    for file in sorted(wanted | set(metadata_files(store)) - {store / "zarr.json"}):
        try:
            if layout.read_json(store, file) is None:
                lines.append(f"{store}: its {file.relative_to(store)} is missing: {layout.REPAIR}")
        except StoreError as error:
            lines.append(str(error))
    return lines
