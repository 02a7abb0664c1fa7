"""slurm/job.sh on its own, with a srun and a scontrol that do as they are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from xr2ct.shipped import shipped

SRUN = """#!/bin/bash
trap 'echo told >>"$BED/told"; [ -n "$DEAF" ] || exit 75' USR1
rank=0
for code in $CODES; do
    [ "$code" = none ] || echo "$code" >"$XR2CT_SLURM/exit-$XR2CT_JOB-$XR2CT_RESTART-rank-$rank"
    rank=$((rank + 1))
done
[ -n "$STACKS" ] && echo stacks >"$XR2CT_SLURM/stacks-$XR2CT_JOB-$XR2CT_RESTART-rank-1.txt"
echo "$XR2CT_JOB $XR2CT_RESTART $PYTHONPATH" >"$BED/started"
printf '%s\\n' "$@" >"$BED/arguments"
[ -n "$WAITS" ] && { touch "$BED/waits"; while :; do sleep 0.1; done; }
exit "$STATUS"
"""
SCONTROL = """#!/bin/bash
case $1 in
    --oneliner) echo "JobId=9 JobState=$STATE Requeue=1 Restarts=$RESTARTS BatchFlag=1" ;;
    requeue) echo "$2" >>"$BED/requeued" ;;
esac
"""


class Host:
    """A submission of one member with two ranks, and the host script run in it."""

    def __init__(self, bed: Path) -> None:
        self.bed = bed
        self.run = bed / "runs" / "it's\n50%a"
        self.submission = bed / "submission"
        member = self.submission / "members" / "3"
        member.mkdir(parents=True)
        (self.run / "slurm").mkdir(parents=True)
        (self.run / "code").mkdir()
        (member / "log").symlink_to(self.run / "slurm")
        (member / "code").symlink_to(self.run / "code")
        (member / "environment.sh").write_text("export XR2CT_TAKES_OVER=5_0\n")
        (self.submission / "workdir").symlink_to(bed)
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (bed / name).write_text(text)
            (bed / name).chmod(0o755)

    def start(self, codes: str, status: int, *options: str, **variables: Any) -> subprocess.Popen[str]:
        told = {
            "BED": self.bed, "PATH": f"{self.bed}:{os.environ['PATH']}", "CODES": codes, "STATUS": status,
            "SLURM_ARRAY_JOB_ID": 9, "SLURM_ARRAY_TASK_ID": 3, "SLURM_NTASKS": 2, "STATE": "RUNNING",
            "XR2CT_LEAD_S": 600, "RESTARTS": variables.get("SLURM_RESTART_COUNT", 0), **variables,
        }  # fmt: skip
        command = ["bash", shipped("slurm/job.sh"), *(options or ("--requeue",)), "--", "python", "-m", "x"]
        return subprocess.Popen(
            command, cwd=self.submission, env={k: str(v) for k, v in told.items()},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def end(self, *arguments: Any, **variables: Any) -> tuple[int, bool, str]:
        """Exit code, whether it was requeued, and why it ended."""
        process = self.start(*arguments, **variables)
        said, _ = process.communicate(timeout=60)
        stop = json.loads((self.run / "slurm" / "stops.jsonl").read_text().splitlines()[-1])
        print(said)
        requeued = (self.bed / "requeued").exists() and "9_3" in (self.bed / "requeued").read_text().split()
        assert stop["requeued"] == requeued, said
        assert stop["exit"] == process.returncode, said
        return process.returncode, requeued, stop["why"]

    def checkpoint(self, step: int) -> None:
        folder = self.run / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "COMPLETE").touch()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("codes", "status", "ends"),
    [
        ("0 0", 0, (0, False, "done")),
        ("75 75", 75, (75, True, "stopped")),
        ("75 none", 137, (75, True, "stopped")),
        ("77 75", 77, (77, False, "superseded")),
        ("76 2", 76, (2, False, "wrong request")),
        ("1 76", 76, (1, False, "work failed")),
        ("none 1", 137, (1, False, "work failed")),
        ("none 76", 137, (1, True, "killed")),
        ("0 none", 137, (1, True, "killed")),
        ("none none", 139, (1, True, "killed")),
        ("none none", 1, (1, True, "not launched")),
    ],
)
def test_what_the_ranks_end_with_decides(
    host: Host, codes: str, status: int, ends: tuple[int, bool, str]
) -> None:
    assert host.end(codes, status) == ends
    assert not list((host.run / "slurm").glob("exit-*"))


def test_the_code_comes_first_on_pythonpath_once_however_many_jobs_hand_it_on(host: Host) -> None:
    found = []
    handed_on = "/elsewhere"
    for _ in range(3):
        host.end("0 0", 0, PYTHONPATH=handed_on)
        handed_on = (host.bed / "started").read_text().removesuffix("\n").split(" ", 2)[2]
        found.append(handed_on)
    assert found[0].endswith("code:/elsewhere")
    assert len(set(found)) == 1


def test_a_job_that_may_not_be_requeued_is_not(host: Host) -> None:
    assert host.end("75 75", 75, "--srun", "--x") == (75, False, "stopped")


def test_dumped_stacks_mean_that_a_rank_hung(host: Host) -> None:
    assert host.end("none none", 1, STACKS=1) == (1, True, "hung")


@pytest.mark.parametrize("state", ["COMPLETING", "PENDING", "CANCELLED"])
def test_what_slurm_ends_by_itself_is_left_to_it(host: Host, state: str) -> None:
    assert host.end("75 75", 75, STATE=state)[1] is False


def test_a_later_attempt_is_not_requeued_by_an_earlier_one(host: Host) -> None:
    assert host.end("75 75", 75, RESTARTS=1)[1] is False


def test_killed_in_vain_it_is_given_up_and_a_newer_checkpoint_counts_as_progress(host: Host) -> None:
    came_back = []
    for restart in range(9):
        if restart == 2:
            host.checkpoint(10)
        (host.bed / "requeued").unlink(missing_ok=True)
        came_back.append(host.end("none none", 137, SLURM_RESTART_COUNT=restart)[1])
        if not came_back[-1]:
            break
    # Twice before the checkpoint, and with it three times more.
    assert came_back == [True] * 5 + [False]


def test_stopped_is_no_failure_however_often(host: Host) -> None:
    for restart in range(6):
        (host.bed / "requeued").unlink(missing_ok=True)
        assert host.end("75 75", 75, SLURM_RESTART_COUNT=restart)[1] is True


def signalled(host: Host, number: int, codes: str = "75 75", **variables: Any) -> str:
    """What the host script says that is sent a signal while its tasks run."""
    process = host.start(codes, 75, WAITS=1, **variables)
    deadline = time.monotonic() + 30
    while not (host.bed / "waits").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    return said


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_every_signal_is_passed_on_as_one_that_srun_hands_to_its_tasks(host: Host, number: int) -> None:
    said = signalled(host, number)
    assert (host.bed / "told").read_text() == "told\n"
    assert (host.bed / "requeued").read_text() == "9_3\n", said


def test_tasks_that_died_of_being_asked_to_stop_were_stopped(host: Host) -> None:
    assert "stopped" in signalled(host, signal.SIGUSR2, codes="none none")
    assert (host.bed / "requeued").exists()


def test_tasks_that_do_not_stop_in_time_are_ended_so_that_the_job_comes_back(host: Host) -> None:
    said = signalled(host, signal.SIGUSR1, codes="none none", DEAF=1, XR2CT_LEAD_S=2)
    assert "too slow to stop" in said
    assert (host.bed / "requeued").exists()


def test_the_tasks_are_told_where_they_belong(host: Host) -> None:
    host.end("0 0", 0, "--srun", "--container-image=a b", SLURM_RESTART_COUNT=2)
    assert (host.bed / "started").read_text() == f"9_3 2 {host.run}/code\n"
    arguments = (host.bed / "arguments").read_text().splitlines()
    assert "--container-image=a b" in arguments
    assert "--output=log/9_3-rank-%t.out" in arguments
    assert arguments[-4:] == ["python", "-m", "x", "/proc/self/cwd/../.."]
