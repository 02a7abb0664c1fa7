"""What is settled before the first step: the data, whether a run may go on, and what was found out once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from xr2ct import provenance
from xr2ct.config import Experiment, Resolved, differences, dump, validate
from xr2ct.errors import UserError, WorkFailed
from xr2ct.loading.source import Source
from xr2ct.models.consistency import own_keys
from xr2ct.registry import component
from xr2ct.run import Run
from xr2ct.seeds import generator
from xr2ct.stages import BEFORE
from xr2ct.store import Case, Store, StoreError
from xr2ct.store.apart import check_apart
from xr2ct.training import checkpoints, stage_before
from xr2ct.training.agreement import from_rank_0
from xr2ct.training.distributed import Ranks
from xr2ct.training.engines import Precision
from xr2ct.training.fence import Fence, held

log = logging.getLogger(__name__)

FREE = (
    "run_root",
    "coarse.run",
    "data.stores",
    "data.phantoms",
    "evaluation.",
    "exhibits",
    "label",
    "tracking.",
    "training.checkpoint_every",
    "training.keep_engines",
    "variants",
)
"""Keys that a run may be started again with other values of, since they change none of its losses. A
store may move because its checksum is compared, and the stage before because the run has a copy of it; all
other keys, `training.threads` too, may change at least a rounding."""


def completed(experiment: Experiment) -> Experiment:
    """With every key of its mapper and method stated, defaults too; `UserError` for a wrong one."""
    parts = {}
    for kind, package, default in (
        ("mapper", "xr2ct.models", "swin-unetr"),
        ("method", "xr2ct.methods", "neural-ot"),
    ):
        given = {"name": default, **getattr(experiment, kind)}
        name = given.pop("name")
        own = own_keys(given, f"{kind} {name}").model_dump(exclude_defaults=True) if kind == "mapper" else {}
        config = validate(component(package, name).Config, given, f"{kind} {name}")
        parts[kind] = {"name": name, **config.model_dump(mode="json"), **own}
    return experiment.model_copy(update={**parts, "resolved": None})


def open_training_data(experiment: Experiment) -> tuple[Store, list[Case]]:
    """The store to learn from and its training cases; `UserError` naming what is there instead.

    It is one too where somebody to learn from is tested on, in this store or in another of
    `evaluation.cohorts` that is there already.
    """
    data = experiment.data
    path = data.store(data.cohort)
    if not path.is_dir():
        there = ", ".join(sorted(p.name for p in data.stores.glob("*.zarr"))) or "no store"
        raise UserError(f"{path}: not there (in data.stores: {there}); `xr2ct ingest` makes it")
    store = Store.open(path)
    cases = training_cases(experiment, store)
    # Refuses what the store lacks.
    Source(store, cases, data, experiment.augmentation, context_side=experiment.context_side)
    check_apart(store, _tested_on(experiment))
    return store, cases


def _tested_on(experiment: Experiment) -> list[Store]:
    """Stores to evaluate on that are there; one that cannot be opened is the evaluation's to name."""
    data, stores = experiment.data, []
    for cohort in experiment.evaluation.cohorts:
        if cohort != data.cohort and data.store(cohort).is_dir():
            with suppress(UserError, StoreError):
                stores.append(Store.open(data.store(cohort)))
    return stores


def training_cases(experiment: Experiment, store: Store) -> list[Case]:
    """The training split, or the first `data.train_cases` of its seeded order.

    Without the cases whose slices the volume is finer than, or a `UserError`, as `data.finer_than_source`
    says.
    """
    cases = _fine_enough(experiment, store, store.split("train"))
    wanted = experiment.data.train_cases
    if not cases or (wanted is not None and wanted > len(cases)):
        told = f"{store.path}: {len(cases)} cases in the training split, expected {wanted or 'some'}"
        if store.excluded:
            told += f" ({len(store.excluded)} cases of the store are excluded by its exclude.csv)"
        raise UserError(told)
    if wanted is None:
        return cases
    order = generator(experiment.seed, "train_cases").permutation(len(cases))
    return [cases[i] for i in order[:wanted]]


def _fine_enough(experiment: Experiment, store: Store, cases: list[Case]) -> list[Case]:
    data = experiment.data
    voxel = store.cube_mm / data.size
    # Of volumes that came as a cube already the slices are not known.
    coarser = {c.id: c.attributes["spacing_mm"][0] for c in cases if "spacing_mm" in c.attributes}
    coarser = {name: spacing for name, spacing in coarser.items() if spacing > voxel * (1 + 1e-3)}
    if not coarser or data.finer_than_source == "allow":
        return cases
    if data.finer_than_source == "leave_out":
        log.info("%s: %d of %d cases left out: slices too far apart", store.path, len(coarser), len(cases))
        return [c for c in cases if c.id not in coarser]
    name, spacing = max(coarser.items(), key=lambda item: item[1])
    raise UserError(
        f"{store.path}: data.size {data.size} is finer ({voxel:g} mm) than the slices of {len(coarser)} of "
        f"{len(cases)} cases (as {name}, {spacing:g} mm); data.finer_than_source: leave_out or allow, "
        "or a smaller size"
    )


def refuse_other_values(run: Run, experiment: Experiment) -> None:
    """`UserError` listing the keys in which a run with a checkpoint was started otherwise.

    Until there is one nothing is lost by other values, and a mistake in them may have kept it from
    coming so far.
    """
    if not run.steps():
        return
    old, new = _comparable(run.experiment()), _comparable(experiment)
    if lines := [line for line in differences(old, new) if not line.startswith(FREE)]:
        raise UserError(
            f"{run.path}: started with other values; delete it, or give this one another name\n"
            + "\n".join(f"  {line}" for line in lines)
        )


def earlier_resolution(run: Run, experiment: Experiment, ranks: Ranks) -> Resolved | None:
    """What the run's start found out; None where nothing is saved yet.

    Raises `UserError` where going on would not be the same. Other versions cost a warning, and so does
    another number of ranks: losses go on alike up to rounding. From ZeRO 2 on it is refused.
    """
    if not run.steps():
        return None
    resolved = run.experiment().resolved
    assert resolved is not None
    now, excluded = provenance.stores(experiment)
    for cohort in sorted(resolved.stores.keys() & now.keys()):
        if resolved.stores[cohort] == now[cohort]:
            continue
        told = f"{run.path}: the store of {cohort} has changed since the start: "
        told += f"{resolved.stores[cohort]} → {now[cohort]}"
        told += _exclusions(resolved.excluded.get(cohort, []), excluded.get(cohort, []))
        if cohort == experiment.data.cohort:
            raise UserError(f"{told}; start a new run, or bring that store back")
        log.warning("%s", told)
    if (copied := stage_before.digest(run)) != resolved.coarse:
        raise UserError(
            f"{run.path}: its copy of the stage before has changed since the start: "
            f"{resolved.coarse} → {copied}; start a new run, or bring {run.path / BEFORE} back"
        )
    for line in differences(resolved.versions, provenance.versions()):
        log.warning("%s: another version than at the start: %s", run.path, line)
    if resolved.world_size != ranks.world_size:
        told = f"{run.path}: started on {resolved.world_size} ranks, now {ranks.world_size}"
        if experiment.training.zero_stage > 1:
            raise UserError(
                f"{told}; with training.zero_stage {experiment.training.zero_stage} keep the number"
                " (it may change with 0 and 1)"
            )
        log.warning("%s: losses go on alike up to rounding", told)
    return resolved


def resolve(run: Run, experiment: Experiment, store: Store, ranks: Ranks, precision: Precision) -> Resolved:
    """What a run's start finds out, once."""
    checksums, excluded = provenance.stores(experiment)
    return Resolved(
        precision=precision,
        world_size=ranks.world_size,
        geometry=store.geometries[experiment.data.geometry].as_attributes(),
        cube_mm=store.cube_mm,
        stores=checksums,
        excluded=excluded,
        versions=provenance.versions(),
        commit=provenance.commit(),
        coarse=stage_before.digest(run),
    )


def _exclusions(before: Sequence[str], now: Sequence[str]) -> str:
    """How a store's exclude.csv has changed; empty where it has not."""
    told = ""
    for what, cases in (
        ("exclude.csv now leaves out", sorted(set(now) - set(before))),
        ("exclude.csv no longer leaves out", sorted(set(before) - set(now))),
    ):
        if cases:
            told += f"; its {what} {', '.join(cases[:5])}"
            told += f" and {len(cases) - 5} more" if len(cases) > 5 else ""
    return told


def write_config(run: Run, experiment: Experiment, fence: Fence) -> None:
    """RUN/config.yaml, replaced whole. Raises `Superseded`, and `WorkFailed` where it cannot be written."""
    try:
        fence.write(run.config_file, dump(experiment))
    except OSError as error:
        raise WorkFailed(f"{run.config_file}: cannot be written: {error}") from error


def checkpoint_to_resume(run: Run, fence: Fence) -> int | None:
    """The step to go on from, None at a first start; damaged newer ones are set aside and named.

    Raises `WorkFailed` where there are checkpoints and none to go on from: starting over is the user's
    to decide; and where the folder cannot be written in.
    """
    try:
        return _whole_checkpoint(run, fence)
    except OSError as error:
        raise WorkFailed(f"{run.path}: cannot be trained in: {error}") from error


def _whole_checkpoint(run: Run, fence: Fence) -> int | None:
    checkpoints.remove_leftovers(run, fence)
    step, passed_over = checkpoints.newest_whole(run)
    reasons = "\n".join(f"  {run.checkpoint(s).name}: {reason}" for s, reason in passed_over.items())
    if step is None and passed_over:
        raise WorkFailed(f"{run.path}: no checkpoint to go on from; delete the run to start over\n{reasons}")
    newer = [s for s in passed_over if step is not None and s > step]
    if newer:
        log.warning("%s: going on from step %d, since newer ones cannot be used\n%s", run.path, step, reasons)
    for s in newer:
        checkpoints.set_aside(run, s)
    return step


@contextmanager
def held_by_one(run: Run, ranks: Ranks) -> Iterator[Fence]:
    """Keep a second command from training the same run at the same time; `WorkFailed` where one does."""
    with ExitStack() as life:
        number = from_rank_0(ranks, lambda: life.enter_context(held(run)).number)
        yield Fence(run, number)


def _comparable(experiment: Experiment) -> dict[str, Any]:
    return experiment.model_dump(mode="json", exclude={"resolved"})
