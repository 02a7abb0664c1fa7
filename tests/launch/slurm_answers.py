"""What Slurm's commands print, for a test to say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Answer = Callable[..., None]

WITH_ACCOUNTING = "MaxArraySize            = 1001\nAccountingStorageType   = accounting_storage/slurmdbd\n"
WITHOUT_ACCOUNTING = "MaxArraySize            = 1001\nAccountingStorageType   = accounting_storage/none\n"


def write_command(folder: Path, command: str, text: str, error: str = "", code: int = 0) -> None:
    """A command that prints that, and notes in COMMAND.asked what it was asked."""
    (folder / f"{command}.out").write_text(text)
    (folder / f"{command}.err").write_text(error)
    path = folder / command
    path.write_text(
        f'#!/bin/sh\necho "$@" >>"{folder}/{command}.asked"\n'
        f'cat "{folder}/{command}.out"\ncat "{folder}/{command}.err" >&2\nexit {code}\n'
    )
    path.chmod(0o755)


def queue_line(*fields: str) -> str:
    """As squeue --Format pads them to the right, each with the suffix asked for."""
    return "".join(f"{field:>200}|" for field in fields) + "\n"


def queued(id: str, state: str, node: str = "n1", reason: str = "None", left: str = "5:00") -> str:
    return queue_line(id, state, node, reason, "0", "0:00", left, "0")
