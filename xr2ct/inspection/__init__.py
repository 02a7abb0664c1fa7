"""Looking at a store: counts, a sheet of pictures, a page to accept and reject cases on (`page`)."""

from __future__ import annotations

from xr2ct.inspection.sheet import contact_sheet
from xr2ct.inspection.summary import format_summary, summary

__all__ = ["contact_sheet", "format_summary", "summary"]
