"""The seven cohorts by name: one to train on, six that are out of its distribution."""

from __future__ import annotations

from xr2ct.errors import UserError, nearest

IN_DISTRIBUTION = "lidc-idri"
OUT_OF_DISTRIBUTION = (
    "covid-19-ny-sbu",
    "spie-aapm",
    "midrc-ricord-1b",
    "anti-pd-1",
    "lctsc",
    "nsclc-radiomics",
)
COHORTS = (IN_DISTRIBUTION, *OUT_OF_DISTRIBUTION)
SPLITS = ("train", "val", "test")


def check_cohort(name: str) -> str:
    """The name itself; `UserError` with the nearest valid one otherwise."""
    if name not in COHORTS:
        raise UserError(f"unknown cohort {name!r}: {nearest(name, COHORTS)}")
    return name
