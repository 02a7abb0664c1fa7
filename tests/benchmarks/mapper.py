from __future__ import annotations

from tests.benchmarks.harness import Row

ROWS: tuple[Row, ...] = ()
