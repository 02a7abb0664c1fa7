"""A cohort's Zarr store: ct/SIZE, xray/GEOMETRY and cases/ID.json. The one place that knows array names.

STORE/zarr.json            Zarr v3 group; attributes say what is visible: cases by row, sizes, geometries
STORE/plan.json            rows and shapes, fixed before any worker starts
STORE/ct/64/…              int16 HU (case, z, y, x), one volume a chunk, not compressed
STORE/xray/x2ct/…          float32 line integrals (case, view, row, col), one case a chunk, not compressed
STORE/radiograph/ID-01/…   uint16 or int16 stored values (row, col) of a DX or CR picture of the patient
STORE/cases/ID.json        what is known of a case, and the SHA-256 of each of its chunks
STORE/refused.csv          what was not taken, and why
STORE/exclude.csv          cases that a person rejected, and why; their chunks stay
"""

from __future__ import annotations

from xr2ct.store.layout import StoreError
from xr2ct.store.read import Case, Store, StoredRadiograph

__all__ = ["Case", "Store", "StoreError", "StoredRadiograph"]
