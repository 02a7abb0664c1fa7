"""Reading a store: visible cases, volumes and X-rays, each chunk checked before its first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xr2ct.cohorts.names import SPLITS
from xr2ct.errors import UserError, nearest
from xr2ct.projection.geometry import Geometry
from xr2ct.store import layout
from xr2ct.store.exclude import installed_exclude
from xr2ct.store.layout import StoreError, XraySet, ct_array, xray_array


@dataclass(frozen=True)
class Case:
    """One visible row."""

    id: str
    patient: str
    split: str
    row: int
    attributes: dict[str, Any] = field(repr=False, compare=False)
    """cases/ID.json."""


@dataclass(frozen=True)
class StoredRadiograph:
    """A picture that came along with a case's CT."""

    name: str
    pixels: np.ndarray
    """(row, col) uint16 or int16 stored values: no LUT applied, MONOCHROME1 not inverted."""
    attributes: dict[str, Any] = field(repr=False, compare=False)
    """What cases/ID.json says of it: view, spacing, what undoes its LUTs, `days_after_ct`, `burned_in` …"""


class Store:
    """One cohort's store, read only. Pickles, and is safe to use after a fork and from threads.

    Chunks are read as the plain files that they are, not through zarr: that is several times faster for a
    whole row, reads single views of a case, and leaves no event loop behind for a forked loader to hang on.
    """

    def __init__(
        self,
        path: Path,
        attributes: dict[str, Any],
        cases: list[Case],
        xrays: list[XraySet],
        excluded: dict[str, str],
    ) -> None:
        """Use `Store.open`."""
        self.path = path
        self.cohort: str = attributes["cohort"]
        self.cube_mm: float = attributes["cube_mm"]
        self.cases = cases
        """In row order."""
        self.excluded = excluded
        """Case → reason, of STORE/exclude.csv."""
        self.sizes: tuple[int, ...] = tuple(attributes["sizes"])
        self.geometries: dict[str, Geometry] = {x.geometry.name: x.geometry for x in xrays}
        self._angles = {x.geometry.name: x.angles for x in xrays}
        self._verified: set[tuple[str, int]] = set()

    @classmethod
    def open(cls, path: Path, *, excluded: bool = False) -> Store:
        """The store at a path, without the cases that its exclude.csv names unless `excluded`.

        Raises `UserError` where there is none, of another schema, with no case visible yet or with none that
        is not excluded, or with an exclude.csv that is not right, and `StoreError` where the file of a
        visible case is missing or damaged.
        """
        path = Path(path)
        attributes = layout.group_attributes(path)
        if not attributes["cases"]:
            raise UserError(f"{path}: no case is visible yet; the same `xr2ct ingest` as before completes it")
        reasons = installed_exclude(path, [c["id"] for c in attributes["cases"]])
        kept = [c for c in attributes["cases"] if excluded or c["id"] not in reasons]
        if not kept:
            raise UserError(
                f"{path}: each of its {len(reasons)} cases is excluded by {layout.exclude_file(path)}; "
                "removing a line there brings a case back"
            )
        for size in attributes["sizes"]:
            layout.array_attributes(path, ct_array(size), (size,) * 3, "int16")
        xrays = [_checked_xray_set(path, name) for name in attributes["geometries"]]
        cases = [
            Case(c["id"], c["patient"], c["split"], c["row"], _case_attributes(path, c["id"])) for c in kept
        ]
        return cls(path, attributes, cases, xrays, reasons)

    def angles(self, geometry: str) -> tuple[float, ...]:
        """Degrees, in the order of the views; `UserError` for a geometry that the store has not."""
        if geometry not in self._angles:
            raise UserError(
                f"{self.path}: no X-rays of geometry {geometry!r}: {nearest(geometry, self._angles)}"
            )
        return self._angles[geometry]

    def split(self, name: str) -> list[Case]:
        """The cases of `train`, `val` or `test`, in row order; may be empty."""
        if name not in SPLITS:
            raise UserError(f"unknown split {name!r}: {nearest(name, SPLITS)}")
        return [c for c in self.cases if c.split == name]

    def volume(self, case: Case, size: int) -> np.ndarray:
        """int16 HU (z, y, x), size³; `StoreError` naming the case where the chunk is missing or damaged."""
        self._check_size(size)
        volume = np.empty((size,) * 3, "<i2")
        with self._reading(case, ct_array(size)) as read:
            read(0, volume)
        return volume

    def sub_volume(self, case: Case, size: int, origin: tuple[int, int, int], side: int) -> np.ndarray:
        """int16 HU (z, y, x), side³: of the volume of `size`, what begins at the voxel `origin` (z, y, x).

        Of the file only the rows that it needs are read, a plane at a time, into no more memory than the
        result and one plane. Raises as `volume` does.
        """
        self._check_size(size)
        z, y, x = origin
        assert all(0 <= first <= size - side for first in origin), f"{side}³ at {origin} of {size}³"
        sub = np.empty((side,) * 3, "<i2")
        rows = np.empty((side, size), "<i2")
        # Read, not mapped: the pages touched would be the same, as rows are shorter than pages, and a file
        # cut short or a lost network disk would end the process instead of raising.
        with self._reading(case, ct_array(size)) as read:
            for plane in range(side):
                read(rows.itemsize * size * (size * (z + plane) + y), rows)
                sub[plane] = rows[:, x : x + side]
        return sub

    def xray(self, case: Case, geometry: str, angles: Sequence[float]) -> np.ndarray:
        """float32 line integrals (view, row, col) of the views at `angles` (degrees), in that order.

        Raises `UserError` for a geometry or an angle that the store has not, and `StoreError` naming the case
        where the chunk is missing or damaged.
        """
        held = self.angles(geometry)
        for angle in angles:
            if angle % 360.0 not in held:
                valid = ", ".join(f"{a:g}" for a in held)
                raise UserError(f"{self.path}: no view at {angle:g}° in xray/{geometry} (valid: {valid})")
        pixels = self.geometries[geometry].pixels
        views = np.empty((len(angles), pixels, pixels), "<f4")
        with self._reading(case, xray_array(geometry)) as read:
            for view, angle in zip(views, angles, strict=True):
                read(held.index(angle % 360.0) * view.nbytes, view)
        return views

    def arrays(self) -> tuple[str, ...]:
        """Names of the visible arrays."""
        return (*map(ct_array, self.sizes), *map(xray_array, self.geometries))

    def checksum(self, size: int | None = None, geometry: str | None = None) -> str:
        """SHA-256 over the visible cases' splits and chunk checksums.

        Of all arrays, or of one size and one geometry alone: that figure stays when others are added.
        """
        arrays = self.arrays()
        if size is not None or geometry is not None:
            chosen = [ct_array(size) if size else "", xray_array(geometry) if geometry else ""]
            arrays = tuple(a for a in arrays if a in chosen)
        lines = [
            [c.id, c.patient, c.split, *(c.attributes["checksums"][a] for a in sorted(arrays))]
            for c in self.cases
        ]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    def radiographs(self, case: Case) -> list[StoredRadiograph]:
        """The case's pictures, none where none came along; `StoreError` where one is missing or damaged."""
        return [self._radiograph(case, about) for about in case.attributes.get("radiographs", [])]

    def problem(self, case: Case, array: str) -> str | None:
        """What is wrong with a case's chunk as it lies on disk; None where nothing is."""
        file = layout.chunk_file(self.path, array, case.row)
        return chunk_problem(file, case.attributes.get("checksums", {}).get(array))

    def _verify(self, case: Case, array: str) -> None:
        """Before the first use of a chunk in this process: hashing each time would be slower than reading."""
        if (array, case.row) in self._verified:
            return
        if problem := self.problem(case, array):
            raise StoreError(f"{self.path}: case {case.id}: its chunk of {array} {problem}")
        self._verified.add((array, case.row))

    def _check_size(self, size: int) -> None:
        if size not in self.sizes:
            held = ", ".join(str(s) for s in self.sizes)
            raise UserError(
                f"{self.path}: no volumes of size {size} (valid: {held}); add it with `xr2ct ingest`"
            )

    @contextmanager
    def _reading(self, case: Case, array: str) -> Iterator[Callable[[int, np.ndarray], None]]:
        """``read(offset, into)`` of a chunk that is as it was written: fills an array from a byte on."""
        self._verify(case, array)
        file = layout.chunk_file(self.path, array, case.row)

        def read(offset: int, into: np.ndarray) -> None:
            stream.seek(offset)
            left = into.data.cast("B")
            while left:
                if not (got := stream.readinto(left)):
                    raise StoreError(
                        f"{self.path}: case {case.id}: its chunk of {array} is cut short ({file})"
                    )
                left = left[got:]

        try:
            with file.open("rb", buffering=0) as stream:
                yield read
        except OSError as error:
            raise StoreError(
                f"{self.path}: case {case.id}: its chunk of {array} cannot be read ({error})"
            ) from None

    def _radiograph(self, case: Case, about: dict[str, Any]) -> StoredRadiograph:
        file = layout.radiograph_file(self.path, about["name"])
        if problem := chunk_problem(file, about["sha256"]):
            raise StoreError(f"{self.path}: case {case.id}: its radiograph {about['name']} {problem}")
        pixels = np.fromfile(file, np.dtype(about["dtype"]).newbyteorder("<"))
        return StoredRadiograph(about["name"], pixels.reshape(about["shape"]), about)


def chunk_problem(file: Path, checksum: str | None) -> str | None:
    """What is wrong with a chunk's file as it lies on disk; None where nothing is."""
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()  # a block at a time
    except OSError as error:
        return f"cannot be read ({error.strerror}: {file})"
    return None if found == checksum else f"differs from its checksum ({file})"


def _checked_xray_set(store: Path, name: str) -> XraySet:
    xrays = layout.xray_set(store, name)
    shape = (len(xrays.angles), xrays.geometry.pixels, xrays.geometry.pixels)
    layout.array_attributes(store, xray_array(name), shape, "float32")
    return xrays


def _case_attributes(store: Path, case_id: str) -> dict[str, Any]:
    values = layout.read_json(store, layout.case_file(store, case_id))
    if values is None:
        raise StoreError(f"{store}: case {case_id}: its {case_id}.json is missing: {layout.REPAIR}")
    return values
