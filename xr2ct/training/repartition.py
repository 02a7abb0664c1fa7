"""A ZeRO 1 optimizer's state, written by one number of ranks, for another number.

Under ZeRO 1 each rank keeps a part of every parameter group's fp32 weights and moments: the group as one
vector, cut into equal parts in the order of ranks, the end padded. So the parts without their padding, one
after the other, are that vector, whatever the number of ranks; nothing is rounded. DeepSpeed's own way
(``ds_to_universal``) gives the same by way of a second checkpoint on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xr2ct.errors import WorkFailed

_PART = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")
_WEIGHTS, _STATE, _PADDING = "single_partition_of_fp32_groups", "base_optimizer_state", "group_paddings"


def parts(folder: Path) -> list[dict[str, Any]]:
    """What each rank wrote of its optimizer, in the order of ranks."""
    found = {int(match[1]): path for path in folder.iterdir() if (match := _PART.fullmatch(path.name))}
    if not found or sorted(found) != list(range(len(found))):
        raise WorkFailed(f"{folder}: an optimizer's parts of ranks {sorted(found)}; some are missing")
    # Pickled by DeepSpeed with objects of its own, and read as its own loading reads them.
    loaded = [torch.load(found[r], map_location="cpu", weights_only=False, mmap=True) for r in sorted(found)]
    return [part["optimizer_state_dict"] for part in loaded]


def part_of(saved: Sequence[Mapping[str, Any]], rank: int, sizes: Sequence[int]) -> dict[str, Any]:
    """The part of `rank`, as if as many ranks had written as there are now.

    saved: every old rank's part. sizes: elements of a part of each parameter group now, padding included.
    """
    first = saved[0]
    base = first[_STATE]
    state = {}
    for index, (group, size) in enumerate(zip(base["param_groups"], sizes, strict=True)):
        (key,) = group["params"]
        olds = [part[_STATE]["state"].get(key, {}) for part in saved]
        state[key] = {
            name: _cut([old[name] for old in olds], _paddings(saved, index), rank, size)
            if torch.is_tensor(value) and value.dim() > 0
            else value  # Adam's count of its steps, the same everywhere
            for name, value in olds[0].items()
        }
    weights = [
        _cut([part[_WEIGHTS][index] for part in saved], [0] * len(saved), rank, size)  # saved without padding
        for index, size in enumerate(sizes)
    ]
    return {**first, _STATE: {**base, "state": state}, _WEIGHTS: weights}


def _paddings(saved: Sequence[Mapping[str, Any]], group: int) -> list[int]:
    return [part[_PADDING][group] for part in saved]


def _cut(olds: Sequence[Tensor], paddings: Sequence[int], rank: int, size: int) -> Tensor:
    """This rank's part of the vector of which `olds` are the parts, padded with zeros at the end."""
    whole = torch.cat(
        [old.flatten()[: old.numel() - padding] for old, padding in zip(olds, paddings, strict=True)]
    )
    own = whole[rank * size : (rank + 1) * size]
    return torch.nn.functional.pad(own, (0, size - own.numel()))
