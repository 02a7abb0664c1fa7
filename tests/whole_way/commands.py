"""What the tests of the whole way share: the commands, and where everything lies after them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WholeWay:
    """Where everything lies after it."""

    work: Path
    config: Path
    run: Path
    page: Path


def xr2ct(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """One command; its exit code is checked, and a traceback is never right."""
    command = [sys.executable, "-m", "xr2ct.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done
