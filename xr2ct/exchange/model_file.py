"""A model to hand on: one safetensors file with weights, configuration, card and self-test.

    stage-0/…           weights of the mapper; stage-1/… those of the stage before it, and so on
    self-test/views     float16 (view, row, col) line integrals of a synthetic chest
    self-test/volume    float32 (n, n, n), what the mapper made of them, averaged down, on the unit window
    extras/NAME/…       arrays that a reconstruction may need beside it, as statistics of training X-rays
    header              {"xr2ct": JSON}: `About`

Nothing in it can run: numbers, and JSON that names components of this package alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.exchange.model_card import Card
from xr2ct.provenance import sha256
from xr2ct.run import write_atomically

FORMAT = 1
SUFFIX = ".xr2ct"

_KEY = "xr2ct"
"""In the header; the only one, since the order of several is not the same each time."""
_HEADER_BYTES = 16 * 2**20
"""What a header may take: hundreds of times what it needs."""
_FLOATS = (torch.float16, torch.float32, torch.float64)
_ARRAYS = (*_FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""What an extra's array may be of."""


class _Part(BaseModel):
    """Keys that a later version of the same format adds are none of this one's business."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StageAbout(_Part):
    """A mapper of the file."""

    checkpoint: str = Field(pattern=r"^[\w.-]{1,80}$")
    """What its folder was called, ``step-000500``."""
    weights: Literal["mapper", "mapper-ema"]
    config: dict[str, Any]
    """Its experiment, without what tells of the machine that trained it."""


class About(_Part):
    """What the header says."""

    format: Literal[1]
    version: str = Field(max_length=80)
    """Of the xr2ct that wrote it."""
    stages: tuple[StageAbout, ...] = Field(min_length=1, max_length=8)
    """The model itself, then the stage before it, and so on."""
    card: Card
    extras: dict[str, dict[str, Any]] = {}
    """Values beside the arrays of each."""


@dataclass(frozen=True)
class Extra:
    """What some part of a reconstruction keeps of a run."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    """JSON."""


@dataclass(frozen=True)
class SelfTest:
    """An input, and what the mapper made of it where the file was written."""

    views: Tensor
    """(view, row, col) float32 line integrals."""
    volume: Tensor
    """(n, n, n) float32 on the unit window: means over blocks of the volume."""


@dataclass(frozen=True)
class Model:
    """A file whose header has been read and checked; its numbers are read when they are asked for."""

    path: Path
    about: About
    experiments: tuple[Experiment, ...]
    """Of each stage, the model's own first."""

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return sha256(self.path)

    def weights(self, stage: int = 0) -> dict[str, Tensor]:
        """A stage's state dictionary, on the CPU."""
        return self._tensors(f"stage-{stage}/")

    @property
    def self_test(self) -> SelfTest:
        """`UserError` where it does not fit the model."""
        found = self._tensors("self-test/")
        data, pixels = self.experiments[0].data, self._pixels
        views, volume = found.get("views"), found.get("volume")
        if views is None or volume is None:
            raise UserError(f"{self.path}: has no self-test")
        n = volume.shape[0] if volume.ndim == 3 and len(set(volume.shape)) == 1 else 0
        fits = tuple(views.shape) == (len(data.views), pixels, pixels) and n and data.size % n == 0
        if not fits or not (views.is_floating_point() and volume.is_floating_point()):
            raise UserError(f"{self.path}: its self-test does not fit its configuration")
        return SelfTest(views.float(), volume.float())

    @cached_property
    def extras(self) -> dict[str, Extra]:
        """By name."""
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for key, tensor in self._tensors("extras/").items():
            name, _, rest = key.partition("/")
            if tensor.dtype not in _ARRAYS:
                raise UserError(f"{self.path}: extras/{key}: an array of {tensor.dtype}")
            arrays.setdefault(name, {})[rest] = tensor.numpy()
        names = sorted({*arrays, *self.about.extras})
        return {name: Extra(arrays.get(name, {}), self.about.extras.get(name, {})) for name in names}

    @property
    def _pixels(self) -> int:
        resolved = self.experiments[0].resolved
        return 0 if resolved is None else int(resolved.geometry["pixels"])

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        with _opened(self.path) as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in sorted(names)}


def read_model(path: Path) -> Model:
    """A model's header, checked; `UserError` naming the file for anything that is none.

    Nothing is allocated by what the file claims: tensors lie within it or it is refused.
    """
    with path.open("rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
    if not 0 < length <= _HEADER_BYTES:
        raise UserError(f"{path}: no model of `xr2ct export` (not a safetensors file)")
    with _opened(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise UserError(
            f"{path}: no model of `xr2ct export` (its header says nothing of xr2ct); "
            "weights of a checkpoint go with the folder that they lie in"
        )
    try:
        told = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: its header is damaged (not JSON)") from None
    if isinstance(told, dict) and told.get("format") != FORMAT:
        raise UserError(
            f"{path}: a model of format {str(told.get('format'))[:20]}, and this xr2ct reads format {FORMAT}"
        )
    about = validate(About, told, f"{path}: header")
    experiments = tuple(
        validate(Experiment, stage.config, f"{path}: stage {number}")
        for number, stage in enumerate(about.stages)
    )
    for experiment, before in zip(experiments, [*experiments[1:], None], strict=True):
        if (experiment.coarse is None) != (before is None):
            raise UserError(f"{path}: {len(experiments)} stages, which is not what its configuration says")
    return Model(path, about, experiments)


def write_model(path: Path, about: About, tensors: Mapping[str, Tensor]) -> None:
    """Write or replace a file, whole or not at all; the same contents give the same bytes."""
    text = json.dumps(about.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={_KEY: text})
    write_atomically(path, content)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({str(error).splitlines()[0]})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)
