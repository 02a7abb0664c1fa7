"""Looking at a store: counts, every checksum, a sheet of pictures, a page to accept and reject cases on."""

from __future__ import annotations

from xr2ct.inspection.sheet import contact_sheet
from xr2ct.inspection.summary import format_summary, summary
from xr2ct.inspection.verify import verify
from xr2ct.store.exclude import install_exclude, read_exclude

__all__ = [
    "contact_sheet",
    "format_summary",
    "install_exclude",
    "read_exclude",
    "summary",
    "verify",
    "write_page",
]
