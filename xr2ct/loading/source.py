"""What of a store a sample needs: its volume or a part of it, the chest around that, the right views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np

from xr2ct.config import Augmentation, Data
from xr2ct.errors import UserError, nearest
from xr2ct.loading.machine import Machine
from xr2ct.loading.order import Sample
from xr2ct.projection.geometry import mirror_angle
from xr2ct.projection.views import scale_views
from xr2ct.store import Case, Store


class CoarseReader(Protocol):
    """What the stage before makes of cases."""

    def volume(self, case: Case) -> np.ndarray:
        """int16 HU (c, c, c) of a patient as he is; several threads ask."""


class Source:
    """Reads samples; safe to use from several threads.

    With `context_side`, a sample's volumes are its ``ct`` and, as ``context``, the store's whole volume of
    that size; with `coarse`, that reader's ``coarse`` too. Raises `UserError` where the store lacks a size,
    the geometry or an angle that will be asked for.
    """

    def __init__(
        self,
        store: Store,
        cases: Sequence[Case],
        data: Data,
        augmentation: Augmentation,
        *,
        context_side: int | None = None,
        coarse: CoarseReader | None = None,
    ) -> None:
        held = ", ".join(map(str, store.sizes))
        if data.size not in store.sizes:
            raise UserError(f"{store.path}: no volumes of data.size {data.size}; valid: {held}")
        if context_side is not None and context_side not in store.sizes:
            raise UserError(
                f"{store.path}: no volumes of {context_side}³, the whole chest around sub-volumes, only of "
                f"{held}: ingest with --size {context_side} too"
            )
        if data.geometry not in store.geometries:
            hint = nearest(data.geometry, store.geometries)
            raise UserError(f"{store.path}: no X-rays of data.geometry {data.geometry!r}; {hint}")
        self._store, self._cases, self._data = store, cases, data
        self._context_side, self._coarse = context_side, coarse
        self._machine = Machine(augmentation, store.geometries[data.geometry], store.cube_mm)
        self._whole_side = augmentation.pose.reproject or data.size
        if self._whole_side not in store.sizes:
            raise UserError(
                f"{store.path}: no volumes of augmentation.pose.reproject {self._whole_side}; valid: {held}"
            )
        self._angles = _held(store, data.geometry, data.views, "ingest with it, or change data.views")
        self._mirrored = self._angles
        self._flips_patients = augmentation.flip == "patient"
        if self._flips_patients and augmentation.flip_probability > 0:
            mirrors = tuple(mirror_angle(a) for a in data.views)
            remedy = "augmentation.flip: patient needs it; ingest with it, or flip xray or none"
            self._mirrored = _held(store, data.geometry, mirrors, remedy)

    @property
    def volumes(self) -> tuple[str, ...]:
        """Names of the volumes of every sample."""
        coarse = () if self._coarse is None else ("coarse",)
        context = () if self._context_side is None else ("context",)
        return ("ct", *coarse, *context)

    def read(self, sample: Sample) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """int16 HU (z, y, x) by name and scaled float32 views (view, row, col), none of them reversed yet.

        Where the patient is flipped, the views are those that become the mirrored patient's once their
        columns are reversed, and a sub-volume is the one that becomes the mirrored patient's at `origin`.
        Raises `StoreError` naming the case where a chunk is missing or damaged.
        """
        case = self._cases[sample.case]
        volumes = {"ct": self._ct(case, sample)}
        if self._coarse is not None:
            volumes["coarse"] = self._coarse.volume(case)
        if self._context_side is not None:
            volumes["context"] = self._store.volume(case, self._context_side)
        angles = self._mirrored if sample.flip else self._angles
        views = self._store.xray(case, self._data.geometry, angles)
        if sample.machine is not None:
            whole = partial(self._store.volume, case, self._whole_side)
            views = self._machine.take(views, angles, whole, sample.machine)
        return volumes, scale_views(views, self._data.xray_scale)

    def _ct(self, case: Case, sample: Sample) -> np.ndarray:
        size, side = self._data.size, self._data.side
        if sample.origin is None:
            return self._store.volume(case, size)
        z, y, x = sample.origin
        if sample.flip and self._flips_patients:
            x = size - side - x
        return self._store.sub_volume(case, size, (z, y, x), side)


def _held(store: Store, geometry: str, wanted: Sequence[float], remedy: str) -> tuple[float, ...]:
    """The store's own figures for the `wanted` angles: 360 − 326.7 is 33.3 but for its last bits."""
    held = store.angles(geometry)
    found = [[h for h in held if abs((h - w + 180) % 360 - 180) < 1e-6] for w in wanted]
    missing = ", ".join(f"{w:g}°" for w, f in zip(wanted, found, strict=True) if not f)
    if missing:
        valid = ", ".join(f"{h:g}°" for h in held)
        raise UserError(f"{store.path}: xray/{geometry} has no view at {missing}, only at {valid}: {remedy}")
    return tuple(f[0] for f in found)
