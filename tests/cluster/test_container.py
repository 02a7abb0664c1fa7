"""Tasks that find none of Slurm's commands, in folders with the worst names: requeued all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trials import Trials, Undisturbed, assert_same_run

WORST = "a b'c\"d$HOME`e`%j%t\n;f*"
WRAPPER = """#!/bin/bash
# A container as far as PATH goes: nothing of Slurm's is on it.
export PATH=$(dirname "$1")
for name in srun sbatch scontrol scancel squeue sacct; do
    if command -v $name; then echo "$name is on PATH"; exit 1; fi
done
exec "$@"
"""


@pytest.mark.slow
def test_no_slurm_on_path_and_hostile_folders(trials: Trials, undisturbed: Undisturbed) -> None:
    trials.run_root = trials.folder / WORST / "runs"
    wrapper = trials.folder / "wrapper"
    wrapper.write_text(WRAPPER, encoding="utf-8")
    wrapper.chmod(0o755)
    profile = trials.profile(container={"runtime": "wrapper", "args": [str(wrapper)]})
    config = trials.config("contained", mapper={"sleep_s": 0.5})
    (member,) = trials.submit(config, profile)
    member.wait_step(4)
    process = trials.bed.rank_process(member.job, 0)
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    path = next(os.fsdecode(value) for value in environment if value.startswith(b"PATH=")).removeprefix(
        "PATH="
    )
    assert not any((Path(folder) / "scontrol").exists() for folder in path.split(":"))
    trials.bed.run("scancel", "--batch", "--signal=USR1", member.job)
    trials.bed.wait_restart(member.job)
    trials.finish(member)
    assert [s["requeued"] for s in member.stops()] == [True, False]
    assert_same_run(member.run, undisturbed.run())
