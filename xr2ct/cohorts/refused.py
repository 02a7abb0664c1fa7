"""What cannot be taken: by patient and reason, while the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    """A case that cannot be taken; its text is the reason. No `UserError`: the other cases go on."""


@dataclass(frozen=True)
class Refusal:
    """One line of a list of what was not taken."""

    patient: str
    """PatientID, or the name of the folder or file where that is unknown."""
    series: str
    """SeriesInstanceUID or a file's stem; empty where the whole patient is meant."""
    reason: str
