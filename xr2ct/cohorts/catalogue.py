"""What is known of each cohort: collection, licence, citation, and the one rule by which its scans are taken.

configs/cohorts.yaml holds the seven; the YAML file that the environment variable XR2CT_COHORTS names adds a
laboratory's own, or replaces whole entries.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xr2ct.config import validate
from xr2ct.config_files import read_yaml
from xr2ct.errors import UserError, nearest
from xr2ct.shipped import shipped

OWN = "XR2CT_COHORTS"
"""Environment variable that names a YAML file of a laboratory's own cohorts."""

NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""What a cohort may be called: the name becomes part of file names."""

Preference = Literal[
    "acquired",
    "coverage",
    "soft",
    "sharp",
    "thin",
    "slices",
    "contrast",
    "no-contrast",
    "early",
]


class Rule(BaseModel):
    """Which series of a cohort are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scans: Literal["patient", "study"] = "patient"
    """One scan a patient, or the best of every study."""
    prefer: tuple[Preference, ...] = ("acquired", "coverage", "slices")
    """Among eligible series the first difference decides; ties by UID."""
    contrast: Literal["any", "with", "without"] = "any"
    thickness_mm: tuple[float, float] = (0.0, 5.0)
    """Smallest and largest slice thickness taken."""
    kernels: tuple[str, ...] = ()
    """Regular expressions, any of which matches the whole kernel; every kernel where empty."""
    min_slices: int = Field(16, ge=2)
    min_lung_coverage: float = Field(0.75, ge=0, le=1)
    """See `cohorts.coverage`: 1 where the lungs end inside the scan."""

    @field_validator("thickness_mm")
    @classmethod
    def _thickness(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1]:
            raise ValueError("expected the smallest and the largest thickness in mm, in this order")
        return value

    @field_validator("kernels")
    @classmethod
    def _kernels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
        return value


class Cohort(BaseModel):
    """One cohort. A laboratory's own needs none of these keys: it is private, and split by seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    collection: str = ""
    """Its name at The Cancer Imaging Archive."""
    idc: str = ""
    """`collection_id` at the Imaging Data Commons; empty where it is not there."""
    doi: str = ""
    """Of the collection's own images; analysis results on top of it have others."""
    license: str = ""
    citation: str = ""
    scans: int = Field(0, ge=0)
    """CT scans published (studies with CT; none of the seven counts a study's series)."""
    patients: int = Field(0, ge=0)
    """Patients with CT."""
    public: bool = False
    """Published without identities: patient numbers and UIDs may be shown as they are."""
    splits: str = "seeded"
    """Name of a shipped list, `seeded` or `test` (everybody): see `cohorts.splits.resolve_splits`."""
    rule: Rule = Rule()

    @model_validator(mode="after")
    def _fetchable(self) -> Cohort:
        if self.idc and not self.doi:
            raise ValueError("a cohort with `idc` needs the `doi` of its collection")
        return self

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "NC" in re.split(r"[\s-]+", self.license.upper())


def catalogue() -> Mapping[str, Cohort]:
    """Every cohort by name, the seven first; `UserError` naming file, key and value where one is wrong."""
    return _catalogue(os.environ.get(OWN, ""))


def cohort(name: str) -> Cohort:
    """The cohort of that name; `UserError` with the nearest valid one."""
    known = catalogue()
    if name not in known:
        raise UserError(f"unknown cohort {name!r}: {nearest(name, known)} (own cohorts: {OWN}=file.yaml)")
    return known[name]


@cache
def _catalogue(own: str) -> Mapping[str, Cohort]:
    known = _read(shipped("configs/cohorts.yaml"))
    if own:
        known |= _read(Path(own))
    return MappingProxyType(known)


def _read(path: Path) -> dict[str, Cohort]:
    entries = read_yaml(path)
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: expected cohorts by name, each with its keys")
    for name in entries:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(
                f"{path}: cohort {name!r}: expected a name of small letters, digits, '.' and '-' "
                "that begins with a letter or digit"
            )
    return {name: validate(Cohort, values or {}, f"{path}: {name}") for name, values in entries.items()}
