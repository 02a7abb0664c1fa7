"""What a configuration takes before it is run: networks, memory a rank, seconds a step, GPU-hours."""

from xr2ct.summary.prediction import DEFAULT_DEVICE, summarise
from xr2ct.summary.text import GIB, format_summary

__all__ = ["DEFAULT_DEVICE", "GIB", "format_summary", "summarise"]
