"""The page to look through a store on: every case, the most unusual first, accepted or rejected by key.

One HTML file with everything in it: nothing is fetched, and it works from where it lies (file://). What is
decided stays in the browser, under the store's checksum, and leaves it as exclude.csv.
"""

from __future__ import annotations

import base64
import html
import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from tqdm import tqdm

from xr2ct.errors import UserError, WorkFailed
from xr2ct.inspection.outliers import WORKING_SIZE, Measured, Verdict, judge, measure
from xr2ct.inspection.thumbnails import strip, tile_names
from xr2ct.run import write_atomically
from xr2ct.store import Case, Store, StoreError


def write_page(store: Store, out: Path, workers: int | None = None, geometry: str | None = None) -> Path:
    """Write the page of a store to `out` and return it; excluded cases are on it, as rejected.

    X-rays are those of `geometry`, the store's first one where None. `workers` is the number of processes,
    one a core where None. A case with a damaged chunk comes first and without pictures. Raises `UserError`
    for a geometry that the store has not and for a page that cannot be written, and `WorkFailed` where a
    worker was killed.
    """
    if out.is_dir():
        raise UserError(f"{out}: a folder; expected the name of an HTML file to write")
    store = Store.open(store.path, excluded=True)
    geometry = geometry or next(iter(store.geometries), None)
    tiles = tile_names(store, geometry)
    looked = list(_look_at_all(store, geometry, workers))
    verdicts = iter(judge([one.measured for one in looked if one.measured]))
    told = [
        _told(store, case, one, next(verdicts) if one.measured else None)
        for case, one in zip(store.cases, looked, strict=True)
    ]
    told.sort(key=lambda case: (-math.inf if case["score"] is None else -case["score"], case["id"]))
    about = {
        "cohort": store.cohort,
        "key": f"xr2ct-inspection:{store.cohort}:{store.checksum()}",
        "tiles": tiles,
    }
    try:
        write_atomically(out, _render(store, about, told))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return out


@dataclass(frozen=True)
class _Looked:
    """What a worker found of one case."""

    measured: Measured | None
    """None where a chunk is damaged."""
    picture: bytes
    problem: str = ""


def _look_at_all(store: Store, geometry: str | None, workers: int | None) -> Iterator[_Looked]:
    """In the order of the cases."""
    count = min(workers or len(os.sched_getaffinity(0)), len(store.cases))
    # Forked from a clean server: a fork of this process, in which others may have threads, can hang.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(count, context, _begin, (store, geometry)) as pool:
        found = pool.map(_look, range(len(store.cases)), chunksize=4)
        try:
            yield from tqdm(found, total=len(store.cases), unit="case", disable=None)
        except BrokenProcessPool:
            raise WorkFailed(
                "a worker was killed, perhaps for want of memory (fewer --workers need less)"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_here: tuple[Store, str | None]
"""Of a worker: what it looks at."""


def _begin(store: Store, geometry: str | None) -> None:
    global _here
    _here = store, geometry


def _look(index: int) -> _Looked:
    store, geometry = _here
    case = store.cases[index]
    size = max((s for s in store.sizes if s <= WORKING_SIZE), default=min(store.sizes))
    try:
        hu = store.volume(case, size)
        picture = strip(store, case, geometry)
    except StoreError as error:
        return _Looked(None, b"", str(error))
    outside = float(case.attributes.get("body_outside_cube", math.nan))
    return _Looked(measure(hu, store.cube_mm, outside), picture)


def _told(store: Store, case: Case, looked: _Looked, verdict: Verdict | None) -> dict[str, Any]:
    """What the page knows of a case; a score of None is that of a damaged one."""
    return {
        "id": case.id,
        "split": case.split,
        "facts": _facts(case, verdict),
        "score": round(verdict.score, 1) if verdict else None,
        "reasons": list(verdict.reasons) if verdict else [looked.problem],
        "excluded": store.excluded.get(case.id),
        "strip": base64.b64encode(looked.picture).decode(),
    }


def _facts(case: Case, verdict: Verdict | None) -> list[str]:
    thickness, outside = case.attributes.get("thickness_mm"), case.attributes.get("body_outside_cube")
    facts = [str(case.attributes.get("kernel") or "kernel unknown")]
    if thickness is not None:
        facts.append(f"{thickness:g} mm")
    if verdict and math.isfinite(verdict.values["lungs_cut"]):
        facts.append(f"lung coverage {100 - 100 * verdict.values['lungs_cut']:.0f} %")
    if outside is not None:
        facts.append(f"{100 * outside:.0f} % of the body cut off")
    return facts


def _render(store: Store, about: dict[str, Any], cases: list[dict[str, Any]]) -> str:
    part = {name: (files(__package__) / f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    return Template(part["html"]).substitute(
        title=html.escape(f"{store.cohort}: {len(cases)} cases"),
        style=part["css"],
        script=part["js"],
        about=_embedded(about),
        cases=",\n".join(map(_embedded, cases)),
    )


def _embedded(values: Any) -> str:
    """JSON that no parser of HTML takes for an end of its element."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
