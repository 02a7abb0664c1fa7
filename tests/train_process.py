"""A rank of a training run, in which the tests' own networks are found by name too.

`python train_process.py CONFIG [key=value ...]`, or `run` in a forked process that has imported everything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# These take seconds, and are imported late by the engines, by torch's optimizers and by the networks.
import deepspeed  # noqa: F401
import monai.networks.nets  # noqa: F401
import torch._dynamo  # noqa: F401

import xr2ct.methods.neural_ot
import xr2ct.models
import xr2ct.training.loop
from xr2ct import cli

xr2ct.models.__path__.append(str(Path(__file__).with_name("training") / "networks"))


def run(arguments: Sequence[str], environment: Mapping[str, str], said: str) -> None:
    """`xr2ct train ARGUMENTS` with what it says in the file `said`."""
    os.environ.update(environment)
    with Path(said).open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.exit(cli.main(["train", *arguments]))


if __name__ == "__main__":
    sys.exit(cli.main(["train", *sys.argv[1:]]))
