"""A Swin UNETR with MONAI's weights and results that is faster and keeps less for the way back."""

from __future__ import annotations

from xr2ct.models.swin.network import SwinUNETR

__all__ = ["SwinUNETR"]
