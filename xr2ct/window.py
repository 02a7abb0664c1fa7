"""Between Hounsfield units and the unit interval that networks see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from xr2ct.errors import UserError

A = TypeVar("A")  # a NumPy array or a torch tensor


@dataclass(frozen=True)
class HuWindow:
    """[low, high] HU ↔ [0, 1]. The default is the 2500-wide window that X2CT-GAN and its successors use."""

    low: float = -1024.0
    high: float = 1476.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"HU window: expected low < high, got {self.low}, {self.high}")

    @property
    def width(self) -> float:
        """In HU."""
        return self.high - self.low

    def to_unit(self, hu: A) -> A:
        """HU to [0, 1], clipped at both ends."""
        return ((hu - self.low) / self.width).clip(0.0, 1.0)  # type: ignore[operator, attr-defined]

    def to_hu(self, unit: A) -> A:
        """The unit interval to HU, clipped to the window first."""
        return unit.clip(0.0, 1.0) * self.width + self.low  # type: ignore[attr-defined]
