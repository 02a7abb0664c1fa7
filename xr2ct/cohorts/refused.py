"""What cannot be taken: by patient and reason, while the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    """A case that cannot be taken; `reason` says why. No `UserError`: the other cases go on."""

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(reason, where)
        self.reason = reason
        """Without names of files, folders or people: it is written down for every cohort."""
        self.where = where
        """Name of the file or folder meant, which may name a patient; told of public cohorts alone."""

    def __str__(self) -> str:
        return told(self.reason, self.where)

    @property
    def passing(self) -> bool:
        """Whether the operating system failed, not the file: a disk that was away, memory that was short."""
        cause = self.__cause__
        while cause is not None:
            if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None):
                return True
            cause = cause.__cause__
        return False


@dataclass(frozen=True)
class Refusal:
    """One line of a list of what was not taken, with the source's own identifiers: for this process alone."""

    patient: str
    """PatientID, or the name of the folder or file where that is unknown."""
    series: str
    """SeriesInstanceUID or a file's stem; empty where the whole patient is meant."""
    reason: str
    """As `Refused.reason`."""
    where: str = ""
    """As `Refused.where`."""


def told(reason: str, where: str) -> str:
    """A reason, after the file or folder that it is about where one is given."""
    return f"{where}: {reason}" if where else reason
