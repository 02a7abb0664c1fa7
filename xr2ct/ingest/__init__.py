"""From a folder of raw CT to a cohort's store with its X-rays."""

from __future__ import annotations

from xr2ct.ingest.command import ingest
from xr2ct.ingest.report import IngestReport, NotTaken

__all__ = ["IngestReport", "NotTaken", "ingest"]
