"""From calls to an array: the exact batch text, what sbatch is called with, and what its refusals become."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.executor import Call, Request, sbatch_text, submit_array
from launch.layout import expandable
from launch.profiles import Profile
from xr2ct.config import validate
from xr2ct.errors import UserError, WorkFailed

GOLDEN = Path(__file__).with_name("sbatch_golden.sh")
REQUEST = Request("table1", 2, 4, 4, 8, 240.5, 720, parallel=3)


def profile(**keys: Any) -> Profile:
    return validate(Profile, {"executor": "slurm", "python": "/opt/venv/bin/python"} | keys, "profile")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on PATH whose sbatch notes how it was called, and says and ends with what is in it."""
    commands = tmp_path / "slurm commands"
    commands.mkdir()
    scripts = {
        "sbatch": 'cd "$(dirname "$0")" && printf "%s\\n" "$OLDPWD" "$@" >called; env >environment\n'
        'cat says >&2; [ -s says ] && exit 1; echo "Submitted batch job 77"',
        "scontrol": 'echo "MaxArraySize            = 4"',
        "srun": "exit 1",
    }
    for name, text in scripts.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    (commands / "says").touch()
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.delenv("XR2CT_COHORTS", raising=False)
    return commands


def calls(folder: Path, count: int = 1) -> list[Call]:
    return [Call(os.mkdir, (f"made by {i}",), folder / f"run {i}" / "slurm", folder) for i in range(count)]


def test_the_batch_text_is_the_golden_one(slurm: Path, tmp_path: Path) -> None:
    told = profile(
        partition="gpu",
        account="lab",
        qos="high",
        constraint="a100|h100",
        modules=["cuda/13.0"],
        environment={"NCCL_SOCKET_IFNAME": "ib0", "CACHE": '$HOME/it\'s "mine"'},
        setup=["ulimit -n 65536"],
        scratch="/scratch/$USER",
        local_disk="$TMPDIR",
        signal_lead_s=300,
        hung_s=900,
        sbatch={"exclude": "n[3-4]", "mail-type": "FAIL"},
    )
    request = replace(REQUEST, dependency="singleton", begin="now+10minutes")
    text = sbatch_text(told, request, calls(tmp_path, 4), tmp_path / ".submissions" / "x")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_what_is_shown_is_what_is_submitted_and_showing_writes_nothing(slurm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / ".submissions" / "x"
    shown = sbatch_text(profile(), REQUEST, calls(tmp_path / "runs", 2), folder)
    assert not (tmp_path / "runs").exists()
    assert submit_array(profile(), REQUEST, calls(tmp_path / "runs", 2), folder) == ["77_0", "77_1"]
    assert (folder / "submission.sh").read_text(encoding="utf-8") == shown
    assert (slurm / "called").read_text().splitlines() == [str(folder), "submission.sh"]


def test_one_call_is_an_array_of_one(slurm: Path, tmp_path: Path) -> None:
    assert submit_array(profile(), REQUEST, calls(tmp_path), tmp_path / "s" / "x") == ["77_0"]
    assert "#SBATCH --array=0-0%1\n" in (tmp_path / "s" / "x" / "submission.sh").read_text()


@pytest.mark.parametrize("name", ["it's mine", 'a "quoted" one', "line\nbreak", "$HOME `id`", "é"])
def test_no_folders_name_reaches_the_batch_text(slurm: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / ".submissions" / "x"
    submit_array(profile(), REQUEST, calls(tmp_path / name), folder)
    assert name not in (folder / "submission.sh").read_text()
    assert (folder / "members/0/log").resolve() == tmp_path / name / "run 0" / "slurm"


def test_percent_signs_in_a_folders_name_are_no_patterns_of_slurm(slurm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "50%a" / ".submissions" / "x"
    submit_array(profile(), REQUEST, calls(tmp_path), folder)
    called = (slurm / "called").read_text().splitlines()
    assert f"--output={tmp_path}/50%%a/.submissions/x/members/%a/log/host-%A_%a.out" in called


def test_a_backslash_is_refused_since_slurm_would_lose_the_logs(slurm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="backslash"):
        submit_array(profile(), REQUEST, calls(tmp_path), tmp_path / "a\\b" / "x")


@pytest.mark.parametrize(
    ("says", "key"),
    [
        ("invalid partition specified: gpuu", "partition: gpuu"),
        ("Invalid account or account/partition combination specified", "account"),
        ("Invalid qos specification", "qos"),
        ("Invalid feature specification", "constraint"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "time_limit_min: 60"),
        ("Invalid generic resource (gres) specification", "gpus_per_node"),
        ("Memory specification can not be satisfied", "mem_gb"),
        ("Requested node configuration is not available", "nodes, tasks_per_node"),
    ],
)  # fmt: skip
def test_a_refusal_has_slurms_words_and_the_profiles_key(
    slurm: Path, tmp_path: Path, says: str, key: str
) -> None:
    (slurm / "says").write_text(f"sbatch: error: Batch job submission failed: {says}\n")
    with pytest.raises(UserError) as refused:
        submit_array(profile(partition="gpuu"), REQUEST, calls(tmp_path), tmp_path / "s" / "x")
    assert says in str(refused.value)
    assert f"(profile key {key}" in str(refused.value)
    assert not (tmp_path / "s" / "x").exists()


def test_a_controller_that_does_not_answer_is_not_the_users_mistake(slurm: Path, tmp_path: Path) -> None:
    (slurm / "says").write_text("sbatch: error: Unable to contact slurm controller (connect failure)\n")
    with pytest.raises(WorkFailed, match="Unable to contact"):
        submit_array(profile(), REQUEST, calls(tmp_path), tmp_path / "x")


def test_more_members_than_an_array_takes_are_refused_with_the_numbers(slurm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"5 members .*: MaxArraySize 4"):
        submit_array(profile(), REQUEST, calls(tmp_path, 5), tmp_path / "x")


def test_from_within_a_job_nothing_of_that_job_is_handed_on(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_the_job = {"SLURM_JOB_ID", "SLURM_NTASKS", "SBATCH_PARTITION", "XR2CT_JOB", "XR2CT_RENDEZVOUS"}
    for name in (*of_the_job, "SLURM_CONF"):
        monkeypatch.setenv(name, "kept?")
    submit_array(profile(), REQUEST, calls(tmp_path), tmp_path / "s" / "x")
    handed = {line.partition("=")[0] for line in (slurm / "environment").read_text().splitlines()}
    assert not handed & of_the_job
    assert "SLURM_CONF" in handed


def test_where_only_login_nodes_may_submit_a_job_does_not(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    login = profile(submit_from="login", evaluator={"schedule": "watch"})
    with pytest.raises(UserError, match="submit_from: login"):
        submit_array(login, REQUEST, calls(tmp_path), tmp_path / "x")


def test_a_job_shorter_than_the_profiles_is_warned_at_half_its_time(slurm: Path, tmp_path: Path) -> None:
    text = sbatch_text(profile(signal_lead_s=300), replace(REQUEST, minutes=6), calls(tmp_path), tmp_path)
    assert "#SBATCH --signal=B:USR1@180\n" in text and 'XR2CT_LEAD_S="180"' in text


def test_what_a_request_states_wins_over_the_profile(slurm: Path, tmp_path: Path) -> None:
    request = replace(REQUEST, overrides={"partition": "short", "exclude": "n1"}, requeue=False)
    text = sbatch_text(profile(partition="gpu", sbatch={"exclude": "n9"}), request, calls(tmp_path), tmp_path)
    options = [
        line for line in text.splitlines() if "partition" in line or "exclude" in line or "requeue" in line
    ]
    assert options == ["#SBATCH --exclude=n1", "#SBATCH --no-requeue", "#SBATCH --partition=short"]
    assert "job.sh --requeue" not in text


@pytest.mark.parametrize(
    ("runtime", "begins", "srun"),
    [
        ("pyxis", "sh", "--container-image=i.sqsh --container-mounts=/r:/r,/w:/w,/data:/data --extra"),
        (
            "apptainer",
            "apptainer exec --nv --bind /r:/r --bind /w:/w --bind /data:/data --extra i.sqsh sh",
            "",
        ),
        ("enroot", "enroot start --mount /r:/r --mount /w:/w --mount /data:/data --env", ""),
    ],
)
def test_only_the_tasks_enter_a_container(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, begins: str, srun: str
) -> None:
    monkeypatch.setattr(Path, "cwd", lambda: Path("/w"))
    container = {"runtime": runtime, "image": "i.sqsh", "mounts": ["/data"], "args": ["--extra"]}
    call = Call(os.mkdir, ("x",), Path("/r/run/slurm"), Path("/r/run/code"))
    text = sbatch_text(profile(container=container, python=None), REQUEST, [call], Path("/r/.submissions/x"))
    host, task = (shlex.split(part) for part in text.splitlines()[-1].split(" -- "))
    assert host == [
        "exec",
        "bash",
        "job.sh",
        "--requeue",
        *(w for option in srun.split() for w in ("--srun", option)),
    ]
    assert task[: len(begins.split())] == begins.split()
    assert task[-8:] == [
        "sh",
        "-c",
        'cd "$XR2CT_START" && exec "$@"',
        "sh",
        "python3",
        "-u",
        "-m",
        "submitit.core._submit",
    ]
    if runtime == "enroot":
        assert {"XR2CT_RENDEZVOUS", "SLURM_PROCID", "PYTHONPATH"} <= set(task)
    outside = sbatch_text(
        profile(container=container), replace(REQUEST, container=False), [call], Path("/r/x")
    )
    assert "i.sqsh" not in outside


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/scratch/$USER_/${N}x", "/scratch/u 1/2x"),
        ('a "b" `id` $(id) \\ c', 'a "b" `id` $(id) \\ c'),
        ("100$ it's\nnew", "100$ it's\nnew"),
        ("\\$USER_", "$USER_"),
    ],
)
def test_variables_in_a_profiles_values_are_filled_in_and_nothing_else(value: str, expected: str) -> None:
    environment = {"USER_": "u 1", "N": "2", "PATH": os.environ["PATH"]}
    command = f"printf %s {expandable(value)}"
    assert (
        subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, check=True
        ).stdout.decode()
        == expected
    )


def test_locally_members_run_one_after_another_where_they_were_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / 'it\'s 50%a\n"here"'
    work.mkdir()
    monkeypatch.chdir(work)
    local = validate(Profile, {"executor": "local"}, "local")
    request = Request("mkdir", 1, 1, 0, None, None, 5)
    members = [replace(call, code=None) for call in calls(work / "runs", 2)]
    ids = submit_array(local, request, members, work / "runs" / ".submissions" / "x")
    stops = [work / "runs" / f"run {i}" / "slurm" / "stops.jsonl" for i in range(2)]
    deadline = time.monotonic() + 120
    while not all(p.exists() for p in stops) and time.monotonic() < deadline:
        time.sleep(0.2)
    logs = [(stop.parent / f"host-{id}.out").read_text() for stop, id in zip(stops, ids, strict=True)]
    assert all('"why": "done"' in stop.read_text() for stop in stops), logs
    assert sorted(p.name for p in work.iterdir()) == ["made by 0", "made by 1", "runs"]
