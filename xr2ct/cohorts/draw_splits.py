"""How the lists in configs/splits/ were drawn, and how to draw them again.

python -m xr2ct.cohorts.draw_splits FOLDER      a list a cohort, from the index of the Imaging Data Commons
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from xr2ct.cohorts.catalogue import cohort
from xr2ct.cohorts.names import COHORTS, IN_DISTRIBUTION
from xr2ct.cohorts.splits import assign_splits
from xr2ct.run import write_atomically

SEED = 0
FRACTIONS = (0.85, 0.05, 0.10)
"""Of LIDC-IDRI's 1,010 patients: with this seed 916 scans to learn from and to choose by, and 102 to test on,
the paper's numbers, here without a patient on both sides."""


def draw(name: str, patients: Sequence[str]) -> dict[str, str]:
    """Patient → split: by seed in the cohort that is trained on, the test split in every other."""
    if name == IN_DISTRIBUTION:
        return assign_splits(patients, SEED, FRACTIONS)
    return dict.fromkeys(sorted(set(patients)), "test")


def write_lists(folder: Path) -> None:
    """FOLDER/COHORT.csv for each of the seven, of every patient with CT."""
    from xr2ct.cohorts.fetch import select  # here: drawing needs no index

    for name in COHORTS:
        patients = sorted(select(name, modalities=("CT",)).patients)
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("patient", "split"))
        lines.writerows(draw(name, patients).items())
        write_atomically(folder / f"{cohort(name).splits}.csv", text.getvalue())


if __name__ == "__main__":
    write_lists(Path(sys.argv[1]))
