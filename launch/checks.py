"""What `xr2ct doctor` looks at from inside a job: each check in each rank, its outcome a line in a file.

    FOLDER/rank-R.jsonl     {"check": "scratch", "outcome": "OK", "told": "…", "rank": 0, "node": "n1"}

An outcome is OK, FAILED or SKIPPED; BEGUN stands there until it is known, so that a check that never ends or
takes its process along is seen too. A rank on which a check failed goes on with the next one it can do.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from launch.profiles import Profile
from launch.units import format_bytes
from xr2ct.errors import Stopped
from xr2ct.locks import alone
from xr2ct.training.environment import rank_of

log = logging.getLogger(__name__)

LIMIT_S = 150.0
"""For one check. Importing torch and DeepSpeed from a cold network disk takes half of it."""
SIGNAL_WAIT_S = 120.0
READY = "ready"
"""Rank 0 makes this file in FOLDER once all ranks wait for a signal."""
_SKEW_S = 5.0
_VISIBLE_S = 30.0
_PACKAGES = ("deepspeed", "geomloss", "mlflow", "monai", "safetensors", "scipy", "torch", "zarr")
_ROOM_BYTES = 10**9


class Failed(Exception):
    """What was found instead of what training needs."""


class Skipped(Exception):
    """Why a check does not apply here."""


@dataclass
class Rank:
    """This process among those of doctor's job."""

    profile: Profile
    folder: Path
    """Where outcomes go: on the run root, seen by all ranks."""
    rank: int
    world_size: int
    node: str
    group: Any = None
    """xr2ct.training.distributed.Ranks once they have met."""
    signals: list[str] = field(default_factory=list)

    def record(self, check: str, outcome: str, told: str) -> None:
        line = {"check": check, "outcome": outcome, "told": told, "rank": self.rank, "node": self.node}
        with (self.folder / f"rank-{self.rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%-8s %s: %s", outcome, check, told)


def check_task(profile: Profile, folder: Path) -> None:
    """One rank of doctor's job; brought back after the signal, it only notes that it was."""
    number, world_size, _ = rank_of(os.environ)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    rank = Rank(profile, folder, number, world_size, node)
    if restart := int(os.environ["XR2CT_RESTART"]):
        rank.record("requeue", "OK", f"came back as attempt {restart}")
        return
    _listen(rank)
    for name, check in CHECKS.items():
        run_check(rank, name, check)
    if rank.signals:
        raise Stopped(f"stopped as {rank.signals[0]} asked")


def run_check(rank: Rank, name: str, check: Callable[[Rank], str], limit_s: float = LIMIT_S) -> None:
    """Do one check and note its outcome; one that does not end in time ends the process with it."""
    rank.record(name, "BEGUN", "")

    def give_up() -> None:
        rank.record(name, "FAILED", f"no end after {limit_s:.0f} s")
        os._exit(1)

    patience = threading.Timer(SIGNAL_WAIT_S + limit_s if name == "signal" else limit_s, give_up)
    patience.daemon = True
    patience.start()
    try:
        outcome, told = "OK", check(rank)
    except Skipped as reason:
        outcome, told = "SKIPPED", str(reason)
    except Failed as reason:
        outcome, told = "FAILED", str(reason)
    except Exception as error:  # whatever a broken installation may raise is the outcome
        log.info("%s", name, exc_info=True)
        outcome, told = "FAILED", f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    patience.cancel()
    rank.record(name, outcome, told)


def _packages(rank: Rank) -> str:
    for name in _PACKAGES:
        importlib.import_module(name)
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "deepspeed", "monai", "zarr"))
    return f"Python {platform.python_version()}, {shown}"


def _gpu(rank: Rank) -> str:
    if not rank.profile.gpus_per_node:
        raise Skipped("the profile asks for no GPU")
    import torch

    if torch.version.cuda is None:
        raise Failed(f"torch is built for the CPU; `make install CUDA=12` or 13 picks the right one{_smi()}")
    driver = int(getattr(torch._C, "_cuda_getDriverVersion")())  # noqa: B009 (builds for the CPU lack it)
    if driver == 0 or not torch.cuda.is_available():
        raise Failed(f"no CUDA device is to be seen, torch is built for CUDA {torch.version.cuda}{_smi()}")
    if driver // 1000 < int(torch.version.cuda.split(".")[0]):
        raise Failed(
            f"the driver knows CUDA {driver // 1000}.{driver % 1000 // 10}, torch is built for "
            f"{torch.version.cuda}; `make install CUDA={driver // 1000}`"
        )
    device = torch.device("cuda", _card())
    total = float(torch.ones(512, 512, device=device).matmul(torch.ones(512, 512, device=device)).sum())
    if total != 512.0**3:
        raise Failed(
            f"{torch.cuda.get_device_name(device)}: a product of ones sums to {total}, not {512.0**3}"
        )
    return (
        f"{torch.cuda.get_device_name(device)}, driver for CUDA {driver // 1000}.{driver % 1000 // 10}, "
        f"torch for {torch.version.cuda}"
    )


def _rendezvous(rank: Rank) -> str:
    from xr2ct.training.distributed import start_distributed

    if rank.profile.gpus_per_node:
        import torch

        if not torch.cuda.is_available():
            raise Skipped("no GPU")
    began = time.monotonic()
    rank.group = start_distributed("cuda" if rank.profile.gpus_per_node else "cpu")
    return f"{rank.world_size} ranks met in {time.monotonic() - began:.1f} s"


def _all_reduce(rank: Rank) -> str:
    import torch
    import torch.distributed as dist

    _needs_group(rank)
    devices = ["cpu"] if rank.group.device.type == "cpu" else ["cpu", str(rank.group.device)]
    expected = rank.world_size * (rank.world_size + 1) / 2
    told = []
    for device in devices:
        numbers = torch.full((1 << 20,), rank.rank + 1.0, device=device)
        began = time.monotonic()
        dist.all_reduce(numbers)
        found = float(numbers[-1])
        seconds = time.monotonic() - began
        if found != expected:
            raise Failed(f"the sum over the ranks is {found} on {device}, not {expected}")
        told.append(f"{'gloo' if device == 'cpu' else 'nccl'} 4 MB in {seconds * 1000:.0f} ms")
    nodes = _gathered(rank, rank.node)
    return f"{', '.join(told)} between {', '.join(dict.fromkeys(nodes))}"


def _dali(rank: Rank) -> str:
    import numpy as np
    import torch
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.types import DALIDataType

    on_gpu = bool(rank.profile.gpus_per_node)
    if on_gpu and not torch.cuda.is_available():
        raise Skipped("no GPU")

    @pipeline_def
    def graph() -> Any:
        volume = fn.external_source(name="ct")
        return fn.cast(volume.gpu() if on_gpu else volume, dtype=DALIDataType.FLOAT) * 2.0

    pipeline = graph(batch_size=1, num_threads=1, device_id=_card() if on_gpu else None)
    pipeline.build()
    pipeline.feed_input("ct", [np.full((8, 8, 8), 21, np.int16)])
    (output,) = pipeline.run()
    found = np.asarray((output.as_cpu() if on_gpu else output).at(0))
    if found.shape != (8, 8, 8) or not (found == 42).all():
        raise Failed(f"twice 21 came out as {found.ravel()[0]}")
    return f"DALI {metadata_of('nvidia-dali')} on the {'GPU' if on_gpu else 'CPU'}"


def metadata_of(prefix: str) -> str:
    """The version of the installed package whose name begins so: DALI's says for which CUDA it is."""
    found = [f"{d.version} ({d.name})" for d in metadata.distributions() if (d.name or "").startswith(prefix)]
    return next(iter(found), "of unknown version")


def _scratch(rank: Rank) -> str:
    folder = _scratch_folder(rank)
    _writable(folder)
    return f"{folder} writable, {_free(folder)}"


def _scratch_locks(rank: Rank) -> str:
    with _own_file(_scratch_folder(rank)) as path:
        _contend(path)
    return "a lock held by one process keeps another out"


def _run_root(rank: Rank) -> str:
    with _own_file(rank.folder) as path:
        _contend(path)
        linked = path.with_name(path.name + ".link")
        os.link(path, linked)
        try:
            os.link(path, linked)
            raise Failed("the same link could be made twice: results would not be committed once")
        except FileExistsError:
            pass
        linked.replace(path)
        # Renaming one of two names of a file onto the other does nothing, says POSIX; some systems differ.
        linked.unlink(missing_ok=True)
        other = path.with_name(path.name + ".other")
        other.write_text("other", encoding="utf-8")
        other.replace(path)
        if path.read_text(encoding="utf-8") != "other":
            raise Failed("a file renamed onto another did not replace it")
    return f"links, renames and locks hold in {rank.folder.parent}, {_free(rank.folder)}"


def _between_ranks(rank: Rank) -> str:
    """Locks and new files of one node, seen from the others."""
    _needs_group(rank)
    if rank.world_size == 1:
        raise Skipped("one rank alone")
    shared, seen = rank.folder / "shared.lock", rank.folder / "seen"
    told: list[str] = []
    if rank.rank == 0:
        with alone(shared):
            _gathered(rank, "held")
            _gathered(rank, "tried")
        seen.write_text("here", encoding="utf-8")
        _gathered(rank, time.time())
        delays = _gathered(rank, 0.0)
    else:
        _gathered(rank, "held")
        kept_out = False
        try:
            with alone(shared):
                pass
        except TimeoutError:
            kept_out = True
        except OSError as error:
            told.append(f"no locks there ({error.strerror})")
        _gathered(rank, "tried")
        _gathered(rank, None)
        began = time.monotonic()
        while not seen.exists() and time.monotonic() - began < _VISIBLE_S:
            time.sleep(0.05)
        delays = _gathered(rank, time.monotonic() - began)
        if not kept_out:
            told.append(f"rank {rank.rank} on {rank.node} could take the lock that rank 0 held")
    if told:
        raise Failed("; ".join(told))
    if max(delays) >= _VISIBLE_S:
        raise Failed(f"a file of rank 0 was not seen by every rank within {_VISIBLE_S:.0f} s")
    return f"one rank's lock keeps the others out, its files are seen within {max(delays):.1f} s"


def _clocks(rank: Rank) -> str:
    _needs_group(rank)
    _gathered(rank, None)  # so that all read their clocks within a message's time
    times = _gathered(rank, time.time())
    skew = max(times) - min(times)
    if skew > _SKEW_S:
        raise Failed(f"the nodes' clocks differ by {skew:.1f} s")
    return f"within {skew:.2f} s"


def _local_disk(rank: Rank) -> str:
    if not rank.profile.local_disk:
        raise Skipped("the profile names none; stores are read where they are")
    folder = Path(os.path.expandvars(rank.profile.local_disk))
    _writable(folder)
    free = _free_bytes(folder)
    if free < _ROOM_BYTES:
        raise Failed(f"{folder}: {format_bytes(free)} free")
    return f"{folder} writable, {format_bytes(free)} free"


def _mlflow(rank: Rank) -> str:
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith(("http://", "https://")):
        raise Skipped("no server's address in MLFLOW_TRACKING_URI; jobs leave tracking to `xr2ct track sync`")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=15) as answer:
            return f"{address} answers with {answer.status}"
    except urllib.error.HTTPError as error:
        return f"{address} answers with {error.code}"
    except OSError as error:
        raise Failed(f"{address}: {getattr(error, 'reason', error)}") from None


def _signal(rank: Rank) -> str:
    """Waits for USR1, which the host script passes on to every rank as at the end of a time limit."""
    if rank.group is not None:
        _gathered(rank, None)
    if rank.rank == 0:
        (rank.folder / READY).touch()
    deadline = time.monotonic() + SIGNAL_WAIT_S
    while not rank.signals:
        if time.monotonic() > deadline:
            raise Failed(f"none reached rank {rank.rank} on {rank.node} within {SIGNAL_WAIT_S:.0f} s")
        time.sleep(0.1)
    return f"{rank.signals[0]} reached every rank"


CHECKS: dict[str, Callable[[Rank], str]] = {
    "packages": _packages,
    "gpu": _gpu,
    "dali": _dali,
    "rendezvous": _rendezvous,
    "all-reduce": _all_reduce,
    "scratch": _scratch,
    "scratch locks": _scratch_locks,
    "run root": _run_root,
    "between ranks": _between_ranks,
    "clocks": _clocks,
    "local disk": _local_disk,
    "mlflow": _mlflow,
    "signal": _signal,
}
"""In the order they are done."""


def submit_from_task(folder: Path) -> None:
    """Whether a job may submit jobs: asked of sbatch on the host, as the evaluator's chain does it."""
    rank = Rank(
        Profile(executor="slurm"), folder, 0, 1, os.environ.get("SLURMD_NODENAME", socket.gethostname())
    )
    run_check(rank, "submit from", _submit_from)


def _submit_from(rank: Rank) -> str:
    from launch.layout import unnested

    script = "#!/bin/sh\nexit 0\n"
    partition = os.environ.get("SLURM_JOB_PARTITION", "")
    asked = subprocess.run(
        ["sbatch", "--test-only", "--time=1", "--mem=50M", f"--partition={partition}"],
        input=script, capture_output=True, text=True, env=unnested(), timeout=60, check=False,
    )  # fmt: skip
    if asked.returncode != 0:
        raise Failed(f"node {rank.node} may not: {' '.join(asked.stderr.split())[:200]}")
    return f"node {rank.node} may submit jobs"


def _listen(rank: Rank) -> None:
    def heard(number: int, _: FrameType | None) -> None:
        rank.signals.append(signal.Signals(number).name)

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, heard)


def _needs_group(rank: Rank) -> None:
    if rank.group is None:
        raise Skipped("the ranks have not met")


def _gathered(rank: Rank, value: Any) -> list[Any]:
    """Every rank's value; a barrier too."""
    import torch.distributed as dist

    values: list[Any] = [value] * rank.world_size
    if rank.world_size > 1:
        dist.all_gather_object(values, value)
    return values


def _scratch_folder(rank: Rank) -> Path:
    """The profile's, or where libraries keep their caches without one."""
    stated = rank.profile.scratch
    return Path(os.path.expandvars(stated)) if stated else Path.home() / ".cache"


@contextmanager
def _own_file(folder: Path) -> Iterator[Path]:
    """A file that no other rank uses, gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".xr2ct-doctor-", dir=folder)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _writable(folder: Path) -> None:
    try:
        with _own_file(folder) as path:
            path.write_bytes(bytes(1 << 20))
            with path.open("rb") as file:
                os.fsync(file.fileno())
            if path.stat().st_size != 1 << 20:
                raise Failed(f"{folder}: a file of 1 MB came back with {path.stat().st_size} bytes")
    except OSError as error:
        raise Failed(f"{folder}: {error.strerror}") from None


_CONTENDER = """
import sys
from pathlib import Path
from xr2ct.locks import alone
try:
    with alone(Path(sys.argv[1])):
        sys.exit(3)
except TimeoutError:
    sys.exit(0)
"""


def _contend(path: Path) -> None:
    """Hold a lock and let another process of this node try to take it."""
    try:
        with alone(path):
            other = subprocess.run([sys.executable, "-c", _CONTENDER, str(path)], check=False, timeout=60)
    except OSError as error:
        raise Failed(f"{path.parent}: no file locks there ({error.strerror})") from None
    if other.returncode == 3:
        raise Failed(f"{path.parent}: two processes could hold the same lock")
    if other.returncode != 0:
        raise Failed(f"{path.parent}: the process that should try the lock ended with {other.returncode}")


def _free(folder: Path) -> str:
    return f"{format_bytes(_free_bytes(folder))} free"


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _card() -> int:
    """This rank's card, as training picks it."""
    import torch

    return rank_of(os.environ)[2] if torch.cuda.device_count() > 1 else 0


def _smi() -> str:
    """What the driver's own tool says, which needs no torch."""
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=False
        )
        first = (asked.stdout or asked.stderr).strip().splitlines()[:1]
        return f"; nvidia-smi: {first[0]}" if first else ""
    return "; nvidia-smi is not there either"
