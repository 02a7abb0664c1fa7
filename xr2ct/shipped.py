"""Files that come with the program: configs/ and slurm/.

They lie beside the package in a clone and in a run's frozen code (RUN/code), and under share/xr2ct/ of an
installation.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from xr2ct.errors import WorkFailed

_PLACES = (
    Path(__file__).resolve().parents[1],
    Path(sysconfig.get_path("data")) / "share" / "xr2ct",
)


def shipped(name: str) -> Path:
    """The file or folder `name`, as `slurm/profiles`; `WorkFailed` where the installation lacks it."""
    for place in _PLACES:
        if (place / name).exists():
            return place / name
    raise WorkFailed(f"{name}: not in this installation (looked in {' and '.join(map(str, _PLACES))})")
