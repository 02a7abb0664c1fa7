"""An exhibit's files, what they were drawn from, and a lock on both: drawn again when the runs are gone.

OUT/NAME.source.json     its source: every value drawn
OUT/NAME.source.npz      and its arrays, where it has any
OUT/NAME.md, .csv, .tex  a table; of a figure NAME.pdf, .svg, .csv
OUT/NAME.lock.json       written last: command, versions, commit, each run's configuration and the checksums
                         of its best checkpoint, stores and results; the checksums of all of the above

Files are drawn from the source as it lies on the disk, so that drawing them again gives the same bytes: text
always, figures with the same Matplotlib.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from xr2ct import provenance
from xr2ct.config import Experiment, Section, validate
from xr2ct.errors import UserError
from xr2ct.reporting.chart import Chart
from xr2ct.reporting.exhibit import Exhibit
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.table import Table
from xr2ct.run import COMPLETE, Run, write_atomically

log = logging.getLogger(__name__)

FORMAT = 1
SUFFIX = ".lock.json"
_KINDS: dict[str, type[Exhibit]] = {"table": Table, "chart": Chart, "gallery": Gallery}


class LockedRun(Section):
    """A run that an exhibit shows."""

    name: str
    """Of its folder, in its configuration's run_root."""
    seed: int
    best_step: int
    config: dict[str, Any]
    """As run; versions and commit of its training are under `resolved`."""
    checkpoint: dict[str, str]
    """SHA-256 of the best checkpoint's weights and COMPLETE, by file name; of those that are still there."""
    stores: dict[str, str]
    """Checksum of each store by cohort, as training found it."""
    results: dict[str, str]
    """SHA-256 of each file of results, by its place under evaluations/."""


class Lock(Section):
    """NAME.lock.json."""

    format: int
    kind: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    command: list[str]
    commit: str | None
    """Of the code that made the exhibit."""
    versions: dict[str, str]
    runs: list[LockedRun]
    source: dict[str, str]
    """SHA-256 of each file of the source, by name."""
    files: dict[str, str]
    """SHA-256 of each file drawn, by suffix."""


def lock_run(run: Run, experiment: Experiment) -> LockedRun:
    """What a lock says of a run that has a best checkpoint."""
    step = run.best_step()
    assert step is not None and experiment.resolved is not None
    weights = (f"{experiment.evaluation.weights}.safetensors", COMPLETE)
    results = sorted(run.evaluations.glob("*/*.csv"))
    return LockedRun(
        name=run.path.name,
        seed=experiment.seed,
        best_step=step,
        config=experiment.model_dump(mode="json"),
        checkpoint={
            f.name: provenance.sha256(f) for name in weights if (f := run.checkpoint(step) / name).is_file()
        },
        stores=experiment.resolved.stores,
        results={str(file.relative_to(run.evaluations)): provenance.sha256(file) for file in results},
    )


def write_exhibit(exhibit: Exhibit, out: Path, command: Sequence[str], runs: Sequence[LockedRun]) -> Lock:
    """Write an exhibit's source, files and lock into `out`."""
    values, arrays = exhibit.source()
    text = json.dumps(_plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    source = {f"{exhibit.name}.source.json": text.encode() + b"\n"}
    if arrays:
        packed = io.BytesIO()
        np.savez_compressed(packed, **dict[str, Any](arrays))
        source[f"{exhibit.name}.source.npz"] = packed.getvalue()
    files = _from_source(exhibit.kind, exhibit.name, source).files()
    for name, content in source.items():
        write_atomically(out / name, content)
    for suffix, content in files.items():
        write_atomically(out / f"{exhibit.name}.{suffix}", content)
    lock = Lock(
        format=FORMAT,
        kind=exhibit.kind,
        name=exhibit.name,
        command=list(command),
        commit=provenance.commit(),
        versions=_versions(),
        runs=list(runs),
        source={name: _sum(content) for name, content in source.items()},
        files={suffix: _sum(content) for suffix, content in files.items()},
    )
    told = json.dumps(lock.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_atomically(out / f"{exhibit.name}{SUFFIX}", told + "\n")
    return lock


def rebuild(path: Path, out: Path) -> list[Path]:
    """Draw the exhibit of a lock again, from the source beside it alone, into `out`.

    Raises `UserError` for a file that is no lock or that a newer version wrote, and for a source that is
    missing or differs from its checksum. What does not come out with its first bytes is named in the log.
    """
    lock = read_lock(path)
    source = {}
    for name, expected in lock.source.items():
        file = path.parent / Path(name).name
        try:
            source[name] = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file}: the source of {path.name} cannot be read ({error.strerror})") from None
        if _sum(source[name]) != expected:
            raise UserError(f"{file}: differs from its checksum in {path.name}; restore it as it was written")
    files = _from_source(lock.kind, lock.name, source).files()
    written = []
    for suffix, content in files.items():
        written.append(out / f"{lock.name}.{suffix}")
        write_atomically(written[-1], content)
    if changed := [suffix for suffix, content in files.items() if _sum(content) != lock.files.get(suffix)]:
        log.warning("%s: not byte for byte as first drawn: %s", path, _why(lock, changed))
    return written


def read_lock(path: Path) -> Lock:
    """A lock; `UserError` for anything else, and for one of a later format."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise UserError(f"{path}: not a lock (expected NAME{SUFFIX} of a report)") from None
    if isinstance(values, Mapping) and isinstance(stated := values.get("format"), int) and stated > FORMAT:
        raise UserError(
            f"{path}: of format {stated}, which a newer xr2ct wrote; this one reads up to {FORMAT}"
        )
    lock = validate(Lock, values, str(path))
    if lock.kind not in _KINDS:
        raise UserError(f"{path}: kind: expected {', '.join(_KINDS)}, got {lock.kind!r}")
    if f"{lock.name}.source.json" not in lock.source:
        raise UserError(f"{path}: source: expected {lock.name}.source.json, got {', '.join(lock.source)}")
    return lock


def _from_source(kind: str, name: str, source: Mapping[str, bytes]) -> Exhibit:
    values = json.loads(source[f"{name}.source.json"])
    arrays: dict[str, np.ndarray] = {}
    if packed := source.get(f"{name}.source.npz"):
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    return _KINDS[kind].from_source(values, arrays)


def _why(lock: Lock, changed: Sequence[str]) -> str:
    here = _versions()
    newer = [
        f"{package} {lock.versions[package]} then, {here.get(package, 'none')} now"
        for package in ("xr2ct", "matplotlib", "numpy")
        if package in lock.versions and lock.versions[package] != here.get(package)
    ]
    return f"{', '.join(changed)} ({'; '.join(newer) or 'by the same versions, on another machine'})"


def _versions() -> dict[str, str]:
    return provenance.versions() | {"matplotlib": version("matplotlib")}


def _plain(value: Any) -> Any:
    """As JSON has it: lists for tuples, Python's numbers for NumPy's, null for a number that is none."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
