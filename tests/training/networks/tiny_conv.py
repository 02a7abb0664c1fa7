"""A mapper small enough to train, kill and resume many times."""

from __future__ import annotations

import time

import torch
from pydantic import Field
from torch import Tensor, nn

from xr2ct.config import Section


class Config(Section):
    """Keys of this mapper."""

    width: int = Field(4, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    explode_at: int | None = None
    """The training pass, counted from 1, whose output is infinite."""
    sleep_s: float = Field(0.0, ge=0)
    """How long each pass takes at least: time for a fault to happen in."""


class TinyConv(nn.Module):
    """Two convolutions, and a dropout that draws from the global generator."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(in_channels, config.width, 3, padding=1)
        self.second = nn.Conv3d(config.width, 1, 3, padding=1)
        self.explode_at = config.explode_at
        self.sleep_s = config.sleep_s
        self.dropout = config.dropout
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.sleep_s)
        self.passes += torch.is_grad_enabled()
        hidden = nn.functional.dropout(torch.tanh(self.first(x)), self.dropout, training=True)
        factor = float("inf") if self.passes == self.explode_at else 1.0
        return self.second(hidden) * factor


def build(config: Config, in_channels: int, size: int) -> nn.Module:
    return TinyConv(config, in_channels)
