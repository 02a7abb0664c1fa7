"""This machine as a cluster: submitit's local controller under the same host script."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.layout import Call, Request, host_command, lay_out, setup_lines, unnested
from launch.profiles import Profile


def submit_locally(profile: Profile, request: Request, calls: Sequence[Call], folder: Path) -> list[str]:
    """Start a process a call and return their ids, which are process ids.

    Each leads a process group of its own, so that closing the terminal or an interrupt ends only the command
    that submitted it. All but the first `array_parallel` wait for their turn.
    """
    lay_out(folder, calls, request)
    try:
        script = folder / "submission.sh"
        script.write_text(local_text(profile, request, calls, folder), encoding="utf-8")
        return [str(_start(script, index)) for index in range(len(calls))]
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def local_text(profile: Profile, request: Request, calls: Sequence[Call], folder: Path) -> str:
    """The exact script that each member's process runs."""
    lines = [
        *setup_lines(profile, request),
        f"export XR2CT_LIMIT_S={request.minutes * 60} XR2CT_PARALLEL={request.parallel or 1}",
        f"export XR2CT_PYTHON={shlex.quote(sys.executable)} SUBMITIT_EXECUTOR=local",
        f"export CUDA_VISIBLE_DEVICES={','.join(map(str, range(request.gpus_per_node)))}",
    ]
    command = host_command(profile, request, calls, folder, local=True)
    return "\n".join(["#!/bin/bash", "", "# setup", *lines, "", "# command", command, ""])


def _start(script: Path, index: int) -> int:
    # The log is named by the process, which is there only once it has begun: so that opens it.
    opened = 'exec >>"members/$XR2CT_MEMBER/log/host-$$.out" 2>&1; . ./"$0"'
    return subprocess.Popen(
        ["bash", "-c", opened, script.name],
        cwd=script.parent,
        env=unnested() | {"XR2CT_MEMBER": str(index)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ).pid
