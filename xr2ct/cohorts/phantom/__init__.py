"""Synthetic chests: patients drawn from a seed, seen by a scanner of one of the seven cohorts."""

from __future__ import annotations

from xr2ct.cohorts.phantom.dicom import patient_id, patient_seed, write_cohort
from xr2ct.cohorts.phantom.scanner import scan, synthetic_chest

__all__ = ["patient_id", "patient_seed", "scan", "synthetic_chest", "write_cohort"]
