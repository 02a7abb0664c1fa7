"""A case as one small strip of square tiles: three middle planes and every X-ray of a geometry."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from xr2ct.store import Case, Store

TILE = 128
"""Pixels along a tile's side."""
QUALITY = 50
"""Of JPEG: about 1 kB a tile."""
PLANE_HU = (-1024.0, 600.0)
"""Black and white of the planes: lungs and bone both show."""
BRIGHTEST = 0.995
"""Quantile of a view's line integrals that is white: a wire or a corner of metal must not darken the rest."""


def tile_names(store: Store, geometry: str | None) -> list[str]:
    """What the tiles of a strip show, from left to right."""
    angles = store.angles(geometry) if geometry else ()
    return ["axial", "coronal", "sagittal", *(f"{angle:g}°" for angle in angles)]


def strip(store: Store, case: Case, geometry: str | None) -> bytes:
    """A grey JPEG of `TILE` rows, the tiles of `tile_names` side by side.

    Planes are shown as a reader sees them: patient's right on the left, head and front up; front on the left
    in the sagittal one. Raises `StoreError` where a chunk is missing or damaged.
    """
    size = max((s for s in store.sizes if s <= TILE), default=min(store.sizes))
    ct, middle = store.volume(case, size), size // 2
    planes = (ct[middle], ct[::-1, middle], ct[::-1, :, middle])
    tiles = [_tile(plane, *PLANE_HU) for plane in planes]
    for view in store.xray(case, geometry, store.angles(geometry)) if geometry else ():
        tiles.append(_tile(view, 0.0, float(np.quantile(view, BRIGHTEST))))
    out = io.BytesIO()
    Image.fromarray(np.concatenate(tiles, axis=1)).save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def _tile(picture: np.ndarray, black: float, white: float) -> np.ndarray:
    """(TILE, TILE) uint8."""
    grey = np.clip((picture - black) * (255 / max(white - black, 1e-6)), 0, 255)
    image = Image.fromarray(np.nan_to_num(grey).astype(np.uint8))
    return np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
