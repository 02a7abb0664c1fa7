"""Bytes and seconds as a terminal shows them."""

from __future__ import annotations


def format_bytes(count: float) -> str:
    """``1.2 GB``: powers of 1000, as disks are sold and quotas set."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_seconds(seconds: float | None) -> str:
    """``2 d 3 h``, ``3 h 10 min``, ``10 min``, ``40 s``; a dash for None."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"
