"""What runs inside each task of a job."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xr2ct.config import Experiment
from xr2ct.errors import (
    PEER_LOST,
    STOPPED,
    SUPERSEDED,
    PeerLost,
    Stopped,
    Superseded,
    UserError,
    WorkFailed,
)
from xr2ct.training.stopping import listening
from xr2ct.training.watchdog import watching

log = logging.getLogger(__name__)


def in_task(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function` where the submission was made, and leave with the exit code that the host script reads.

    A wrong request and failed work are one line in the log, without a traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", force=True)
    logging.getLogger("submitit").propagate = False  # it has a handler of its own
    start = Path.cwd()
    os.chdir(os.environ["XR2CT_WORKDIR"])
    try:
        result = function(*arguments)
    except (UserError, WorkFailed, Stopped) as error:
        log.error("%s", error)
        _leave(exit_code(error))
    except Exception:
        _tell(1)
        raise
    finally:
        os.chdir(start)  # submitit names its folder by the way from there
    _tell(0)
    return result


def exit_code(error: UserError | WorkFailed | Stopped) -> int:
    """What a process ends with for a request that was wrong, work that failed, or a stop when asked to."""
    match error:
        case UserError():
            return 2
        case Superseded():
            return SUPERSEDED
        case PeerLost():
            return PEER_LOST
        case Stopped():
            return STOPPED
    return 1


def train_task(experiment: Experiment, overrides: Sequence[str]) -> None:
    """One rank of a training job.

    It listens for signals and for its own silence before it imports torch, which takes seconds.
    """
    with listening(), watching():
        from xr2ct.training.loop import train

        train(experiment, overrides)


def _leave(code: int) -> None:
    _tell(code)
    sys.exit(code)


def _tell(code: int) -> None:
    """Leave this rank's exit code for the host script: srun's own says only which was the highest."""
    folder, job, restart = (os.environ[f"XR2CT_{key}"] for key in ("SLURM", "JOB", "RESTART"))
    rank = os.environ.get("SUBMITIT_LOCAL_GLOBALID") or os.environ.get("SLURM_PROCID", "0")
    with suppress(OSError):  # a full disk: srun's own has to do
        (Path(folder) / f"exit-{job}-{restart}-rank-{rank}").write_text(f"{code}\n", encoding="utf-8")
