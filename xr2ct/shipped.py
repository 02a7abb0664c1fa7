"""Files that come with the program: configs/ of a clone, or share/xr2ct/configs/ of an installation."""

from __future__ import annotations

import sys
from pathlib import Path

from xr2ct.errors import WorkFailed

_PLACES = (
    Path(__file__).resolve().parents[1] / "configs",
    Path(sys.prefix) / "share" / "xr2ct" / "configs",
)


def shipped(name: str) -> Path:
    """The file or folder `name` under configs/; `WorkFailed` where the installation lacks it."""
    for place in _PLACES:
        if (place / name).exists():
            return place / name
    raise WorkFailed(f"{name}: not in this installation (looked in {' and '.join(map(str, _PLACES))})")
