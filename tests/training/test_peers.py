"""A rank that ends alone: it says why itself, and the others say in a line whom to ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RANK = """
import os, signal, sys, torch, torch.distributed as dist
from xr2ct.errors import PeerLost, WorkFailed
from xr2ct.training.agreement import together, wait_for_all
try:
    with together("cpu") as ranks:
        wait_for_all(ranks)
        if ranks.rank == int(sys.argv[1]):
            if sys.argv[2] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise WorkFailed("its disk is full")
        wait_for_all(ranks)
except PeerLost as error:
    print(error)
    sys.exit(76)
except WorkFailed as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("how", ["failed", "killed"])
def test_the_others_say_who_is_gone(tmp_path: Path, gone: int, how: str) -> None:
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "XR2CT_RENDEZVOUS": str(tmp_path / "meet")}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(gone), how],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120) for rank in ranks]
    other = 1 - gone
    assert ranks[gone].returncode == (1 if how == "failed" else -9), said
    assert ranks[other].returncode == 76, said
    assert said[other][0].startswith(f"rank {gone} is gone")
    assert "see its log" in said[other][0]
    assert said[other][0].count("\n") == 1
    if how == "failed":
        assert said[gone][0] == "its disk is full\n"
        if gone == 1:  # rank 0 keeps what they tell one another
            assert said[other][0] == "rank 1 is gone: its disk is full; see its log\n"
