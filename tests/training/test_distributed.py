"""How ranks learn who they are, and find each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xr2ct.errors import UserError, WorkFailed
from xr2ct.training.distributed import start_distributed
from xr2ct.training.environment import on_one_machine, rank_of

MEET = """
import torch, torch.distributed as dist
from xr2ct.training.distributed import start_distributed
ranks = start_distributed("cpu")
total = torch.tensor([ranks.rank + 1.0])
dist.all_reduce(total)
print(ranks.rank, ranks.world_size, total.item())
"""


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
SUBMITIT = {"SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_LOCALID": "1"}
# A batch script that starts training without srun is one rank, however many tasks the job has.
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0)),
        (TORCHRUN, (3, 4, 1)),
        (SLURM, (5, 8, 1)),
        (SUBMITIT, (1, 2, 1)),
        (BATCH_SCRIPT, (0, 1, 0)),
        (SLURM | TORCHRUN, (3, 4, 1)),
        (SLURM | SUBMITIT, (1, 2, 1)),
    ],
)
def test_ranks_from_the_environment(environment: dict[str, str], expected: tuple[int, int, int]) -> None:
    assert rank_of(environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "4"}, True),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}, False),
        (TORCHRUN, False),
        (SLURM | {"SLURM_STEP_NUM_NODES": "1"}, True),
        (SLURM | {"SLURM_STEP_NUM_NODES": "2"}, False),
        (SUBMITIT, True),
    ],
)
def test_whether_ranks_share_a_machine(environment: dict[str, str], expected: bool) -> None:
    """Rank 0 publishes a name that other machines resolve, unless there are none."""
    assert on_one_machine(environment, rank_of(environment)[1]) is expected


def test_ranks_with_no_way_to_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "XR2CT_RENDEZVOUS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="XR2CT_RENDEZVOUS"):
        start_distributed("cpu")


def test_ranks_meet_although_a_dead_address_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "rendezvous"
    path.parent.mkdir()
    path.write_text("127.0.0.1:9\n")
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "XR2CT_RENDEZVOUS": str(path)}

    def start(rank: int) -> subprocess.Popen[str]:
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        return subprocess.Popen(
            [sys.executable, "-c", MEET], env=environment, stdout=subprocess.PIPE, text=True
        )

    second = start(1)
    first = start(0)
    told = [rank.communicate(timeout=120)[0] for rank in (first, second)]
    assert told == ["0 2 3.0\n", "1 2 3.0\n"]


def test_a_job_with_gpus_never_trains_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XR2CT_REQUIRE_GPU", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(WorkFailed, match=r"^node .*: no CUDA device is visible, .*\(gpus_per_node\)"):
        start_distributed("auto")
    with pytest.raises(UserError, match=r"training\.device: cpu, but the profile asks for GPUs"):
        start_distributed("cpu")
