"""What a report is made of: tables, charts and galleries, each made by name from a study's results.

An exhibit is drawn from its source alone, plain values and arrays, so that it can be drawn again when the
runs behind it are gone (see `reporting.lock`). Its maker is a function in xr2ct/reporting/exhibits/.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from xr2ct.errors import UserError, nearest

if TYPE_CHECKING:
    from xr2ct.reporting.study import Study

Source = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Values that JSON holds, and arrays by name."""


class Exhibit(ABC):
    """One table or figure."""

    kind: ClassVar[str]
    """``table``, ``chart`` or ``gallery``."""
    name: str
    """File name without suffix."""
    title: str
    caption: str

    @abstractmethod
    def source(self) -> Source:
        """Everything that `files` and `html` need. A number that is NaN comes back as None."""

    @classmethod
    @abstractmethod
    def from_source(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Exhibit:
        """The exhibit whose `source` they are."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """By suffix: a table's md, csv and tex, a figure's pdf, svg and csv. The same source gives the same
        bytes in any process."""

    @abstractmethod
    def html(self) -> str:
        """The body of its part of the page, with its caption and without its title; nothing fetched."""


Maker = Callable[["Study"], Exhibit | None]
"""Makes an exhibit of a study; None where the study has nothing to show in it."""
M = TypeVar("M", bound=Maker)

_makers: dict[str, Maker] = {}


def exhibit(name: str) -> Callable[[M], M]:
    """Register the maker of the exhibit `name`."""

    def register(maker: M) -> M:
        if _makers.setdefault(name, maker) is not maker:
            raise ValueError(f"two makers of the exhibit {name!r}")
        return maker

    return register


def makers() -> dict[str, Maker]:
    """Every maker, by the name of its exhibit."""
    package = importlib.import_module("xr2ct.reporting.exhibits")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(_makers)


def maker(name: str) -> Maker:
    """The maker of an exhibit; `UserError` naming the nearest where there is none."""
    known = makers()
    if name not in known:
        raise UserError(f"exhibits: unknown name {name!r}: {nearest(name, known)}")
    return known[name]
