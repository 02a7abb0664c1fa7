"""The seven cohorts by name: one to train on, six that are out of its distribution."""

from __future__ import annotations

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
    """The name, of the seven or of a laboratory's own; `UserError` with the nearest valid one otherwise."""
    from xr2ct.cohorts.catalogue import cohort  # here: the catalogue is read as the configuration is

    cohort(name)
    return name
