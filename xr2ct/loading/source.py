"""What of a store a sample needs: its volume, and its views at the right angles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xr2ct.config import Augmentation, Data
from xr2ct.errors import UserError, nearest
from xr2ct.loading.order import Sample
from xr2ct.projection.geometry import mirror_angle
from xr2ct.projection.views import scale_views
from xr2ct.store import Case, Store


class Source:
    """Reads samples; safe to use from several threads.

    Raises `UserError` where the store lacks the size, the geometry or an angle that will be asked for.
    """

    def __init__(self, store: Store, cases: Sequence[Case], data: Data, augmentation: Augmentation) -> None:
        if data.size not in store.sizes:
            held = ", ".join(map(str, store.sizes))
            raise UserError(f"{store.path}: no volumes of data.size {data.size}; valid: {held}")
        if data.geometry not in store.geometries:
            hint = nearest(data.geometry, store.geometries)
            raise UserError(f"{store.path}: no X-rays of data.geometry {data.geometry!r}; {hint}")
        self._store, self._cases, self._data = store, cases, data
        self._angles = _held(store, data.geometry, data.views, "ingest with it, or change data.views")
        self._mirrored = self._angles
        if augmentation.flip == "patient" and augmentation.flip_probability > 0:
            mirrors = tuple(mirror_angle(a) for a in data.views)
            remedy = "augmentation.flip: patient needs it; ingest with it, or flip xray or none"
            self._mirrored = _held(store, data.geometry, mirrors, remedy)

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """int16 HU (z, y, x) and scaled float32 views (view, row, col), none of them reversed yet.

        Where the patient is flipped, the views are those that become the mirrored patient's once their
        columns are reversed. Raises `StoreError` naming the case where a chunk is missing or damaged.
        """
        case = self._cases[sample.case]
        volume = self._store.volume(case, self._data.size)
        angles = self._mirrored if sample.flip else self._angles
        views = self._store.xray(case, self._data.geometry, angles)
        return volume, scale_views(views, self._data.xray_scale)


def _held(store: Store, geometry: str, wanted: Sequence[float], remedy: str) -> tuple[float, ...]:
    """The store's own figures for the `wanted` angles: 360 − 326.7 is 33.3 but for its last bits."""
    held = store.angles(geometry)
    found = [[h for h in held if abs((h - w + 180) % 360 - 180) < 1e-6] for w in wanted]
    missing = ", ".join(f"{w:g}°" for w, f in zip(wanted, found, strict=True) if not f)
    if missing:
        valid = ", ".join(f"{h:g}°" for h in held)
        raise UserError(f"{store.path}: xray/{geometry} has no view at {missing}, only at {valid}: {remedy}")
    return tuple(f[0] for f in found)
