"""Whether what is installed runs in a job: packages, the GPU and its driver, DALI, MLflow, sbatch."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from importlib import metadata
from typing import Any

from launch.check import Failed, Rank, Skipped
from launch.layout import unnested
from xr2ct.training.environment import rank_of

_PACKAGES = ("deepspeed", "geomloss", "monai", "safetensors", "scipy", "torch", "zarr")


def packages(rank: Rank) -> str:
    for name in _PACKAGES:
        importlib.import_module(name)
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "deepspeed", "monai", "zarr"))
    return f"Python {platform.python_version()}, {shown}"


def gpu(rank: Rank) -> str:
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


def dali(rank: Rank) -> str:
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
    return f"DALI {_version_of('nvidia-dali')} on the {'GPU' if on_gpu else 'CPU'}"


def mlflow(rank: Rank) -> str:
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith(("http://", "https://")):
        raise Skipped("no server's address in MLFLOW_TRACKING_URI; jobs leave tracking to `xr2ct track sync`")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=15) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        raise Failed(f"{address}: {getattr(error, 'reason', error)}") from None
    importlib.import_module("mlflow")
    return f"{address} answers with {status}"


def submit_from(rank: Rank) -> str:
    script = "#!/bin/sh\nexit 0\n"
    partition = os.environ.get("SLURM_JOB_PARTITION", "")
    asked = subprocess.run(
        ["sbatch", "--test-only", "--time=1", "--mem=50M", f"--partition={partition}"],
        input=script, capture_output=True, text=True, env=unnested(), timeout=60, check=False,
    )  # fmt: skip
    if asked.returncode != 0:
        raise Failed(f"node {rank.node} may not: {' '.join(asked.stderr.split())[:200]}")
    return f"node {rank.node} may submit jobs"


def _version_of(prefix: str) -> str:
    """The version of the installed package whose name begins so: DALI's says for which CUDA it is."""
    found = [f"{d.version} ({d.name})" for d in metadata.distributions() if (d.name or "").startswith(prefix)]
    return next(iter(found), "of unknown version")


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
