"""Sparse matrices times dense ones, fast on CPU and GPU, and the same sum whatever the number of threads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ROUNDING = 1e-9
"""An entry below this is a coordinate's rounding, not a neighbour."""


@dataclass(frozen=True)
class Sparse:
    """A sparse matrix by rows. `embedding_bag` is its product: each row's sum is one thread's, in order."""

    offsets: Tensor
    """(rows + 1) int32, where each row's entries begin."""
    columns: Tensor
    """int32."""
    weights: Tensor
    width: int
    """Columns of the matrix."""

    @classmethod
    def gather(cls, columns: Tensor, weights: Tensor, width: int, dtype: torch.dtype) -> Sparse:
        """From (rows, entries) of columns and weights, leaving out what weighs nothing."""
        kept = weights > _ROUNDING
        return cls(
            F.pad(kept.sum(1).cumsum(0), (1, 0)).int(), columns[kept].int(), weights[kept].to(dtype), width
        )

    def __matmul__(self, dense: Tensor) -> Tensor:
        """(width, n) → (rows, n); rows without entries are 0."""
        return F.embedding_bag(
            self.columns, dense, self.offsets,
            mode="sum", per_sample_weights=self.weights, include_last_offset=True,
        )  # fmt: skip

    def transposed(self) -> Sparse:
        """Its entries by column, in the order of their rows."""
        order = self.columns.argsort(stable=True)
        rows = torch.arange(len(self.offsets) - 1, dtype=torch.int32, device=order.device)
        entries = rows.repeat_interleave(self.offsets.diff())[order]
        counts = self.columns.bincount(minlength=self.width)
        return Sparse(
            F.pad(counts.cumsum(0), (1, 0)).int(), entries, self.weights[order], len(self.offsets) - 1
        )

    @property
    def nbytes(self) -> int:
        return self.offsets.nbytes + self.columns.nbytes + self.weights.nbytes
