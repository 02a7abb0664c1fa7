"""A configuration from nothing to its report, on one machine: stores, training, evaluation, tables, figures.

    xr2ct study CONFIG [key=value ...] --out DIR [--minutes M]

Synthetic chests that `data.phantoms` names and that are not there are made, every member of the configuration
is trained and scored in processes of its own, one after another, and all are reported on together. Stopped at
any moment, the same command goes on where it was. A member that fails is named at the end.
"""

from xr2ct.study.run import run_study

__all__ = ["run_study"]
