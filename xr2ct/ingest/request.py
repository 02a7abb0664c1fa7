"""What an ingest is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from xr2ct.errors import UserError
from xr2ct.projection.geometry import Geometry
from xr2ct.store import layout

FRACTIONS = (0.8, 0.1, 0.1)
"""Training, validation and test patients where they are drawn by seed."""

LOCK = ".ingest.lock"
"""In the store, held by the process that ingests."""


@dataclass(frozen=True)
class Request:
    """The arguments of `ingest`; see there."""

    source: Path
    store: Path
    cohort: str
    sizes: tuple[int, ...]
    geometries: tuple[Geometry, ...] = ()
    angles: tuple[float, ...] | None = None
    cube_mm: float = 320.0
    seed: int = 0
    fractions: tuple[float, float, float] = FRACTIONS
    splits: str | Path | None = None
    workers: int | None = None
    salt: Path | None = None
    remove_table: bool = False
    repair: bool = False

    def check(self) -> None:
        """`UserError` for what is wrong with it, whatever the source holds."""
        source, store, sizes = self.source, self.store, self.sizes
        if not source.exists():
            raise UserError(f"{source}: expected a folder of CT or a PLAN.csv, found nothing")
        if not sizes or min(sizes) < 16:
            raise UserError(f"size {','.join(map(str, sizes))}: expected voxels a side, 16 or more")
        if not 16 <= self.cube_mm < math.inf:
            raise UserError(f"cube_mm {self.cube_mm:g}: expected the cube's side in millimetres, 16 or more")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers {self.workers}: expected 1 or more")
        if source.is_dir() and store.resolve().is_relative_to(source.resolve()):
            raise UserError(f"{store}: lies inside the source {source}; put the store elsewhere")
        if store.exists() and not store.is_dir():
            raise UserError(f"{store}: a file; expected a folder for the store")
        if self.repair and not layout.is_remains(store):
            raise UserError(f"{store}: no store to repair")
        if self.repair:
            return
        if (store / "zarr.json").is_file():
            layout.group_attributes(store)
        elif store.is_dir() and not layout.plan_file(store).is_file():
            if layout.is_remains(store):
                raise layout.StoreError(f"{store}: its zarr.json and plan.json are missing: {layout.REPAIR}")
            strangers = {p.name for p in store.iterdir()} - {layout.refused_file(store).name, LOCK}
            if strangers:
                raise UserError(f"{store}: not a store, yet it holds {min(strangers)}; name another folder")
