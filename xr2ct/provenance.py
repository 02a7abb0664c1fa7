"""Where figures come from: versions, the code's commit, the stores' checksums. Kept in every run's config."""

from __future__ import annotations

import hashlib
import logging
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from xr2ct import __version__
from xr2ct.config import Experiment
from xr2ct.errors import UserError

log = logging.getLogger(__name__)

PACKAGES = (
    "xr2ct",
    "torch",
    "deepspeed",
    "monai",
    "geomloss",
    "numpy",
    "zarr",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "safetensors",
)
"""What can change a trained weight."""


def versions() -> dict[str, str]:
    """Python's and each installed package's version, and CUDA's and cuDNN's where torch has them."""
    import torch

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def commit() -> str | None:
    """The git commit of this package, ending in ``-dirty`` where files differ from it; None outside git.

    A run's frozen code has it in a file.
    """
    package = Path(__file__).resolve().parent
    if (frozen := package.parent / "COMMIT").is_file():
        return frozen.read_text(encoding="utf-8").strip() or None
    # An installed copy may lie inside somebody else's repository: ask whether this very file is tracked.
    if _git(package, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    head = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{head}-dirty" if head and changed else head


def stores(experiment: Experiment) -> tuple[dict[str, str], dict[str, list[str]]]:
    """By cohort, of the store trained on and of those evaluated on: the checksum of what the experiment
    reads, and the excluded cases where there are any.

    Stores that are not there yet are left out; one that cannot be opened too, with a warning.
    """
    from xr2ct.store import Store, StoreError

    data = experiment.data
    checksums: dict[str, str] = {}
    excluded: dict[str, list[str]] = {}
    for cohort in sorted({data.cohort, *experiment.evaluation.cohorts}):
        path = data.store(cohort)
        if not path.is_dir():
            continue
        try:
            store = Store.open(path)
        except (UserError, StoreError) as error:
            log.warning("%s", error)
            continue
        checksums[cohort] = store.checksum(data.size, data.geometry)
        if store.excluded:
            excluded[cohort] = sorted(store.excluded)
    return checksums, excluded


def sha256(path: Path) -> str:
    """Of a file, as `sha256sum` prints it; of a folder, of its files' digests in the order of their names."""
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*") if p.is_file())
        return hashlib.sha256("".join(map(sha256, parts)).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_case(cohort: str, case: str, chunk: str) -> dict[str, str]:
    """What a file says that was made of a store's chunk with that checksum."""
    return {
        "xr2ct_version": __version__,
        "xr2ct_cohort": cohort,
        "xr2ct_case": case,
        "xr2ct_chunk_sha256": chunk,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
