"""What a scoring task runs: its pairs of a checkpoint and a cohort's split, a checkpoint's model loaded once.

A pair that another job is at, or that is scored meanwhile, is left alone; one that fails is noted with its
reason and the others go on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from launch.evaluator_book import Book, Job, claim, failures, note_failure, release, work_of
from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed, first_line
from xr2ct.evaluation.in_way import InWay
from xr2ct.evaluation.pairs import Expected, Pair, Stores, find_pairs
from xr2ct.evaluation.pending import PendingPair
from xr2ct.evaluation.scoring import Predictor
from xr2ct.evaluation.sweep import (
    AT_ONCE,
    Sweep,
    choose_device,
    is_current,
    load_checkpoints,
    load_methods,
    score_and_commit,
)
from xr2ct.evaluation.ways import load_ways
from xr2ct.run import Run, step_name
from xr2ct.training.stopping import SIGNALS

log = logging.getLogger(__name__)


def score_task(root: str, task: str, pairs: Sequence[Sequence[str]]) -> None:
    """Score `pairs`, each (run, source, cohort, split), as task `task` of the evaluator of `root`.

    Raises `WorkFailed` with every reason once the others are done. Told to stop, it ends after the split at
    hand and leaves the rest to the evaluator.
    """
    events = Events(Book(Path(root)).task_file(task))
    events.add(job=Job.here().id)
    stopping = _stop_when_told()
    failed: list[str] = []
    work = [work_of(plain) for plain in pairs]
    for path in dict.fromkeys(one.run for one in work):
        scorer = RunScorer(Run(path), events, stopping)
        failed += scorer.score([one.pair for one in work if one.run == path])
    if failed:
        raise WorkFailed("\n".join(dict.fromkeys(failed)))


class Events:
    """A file to which a task adds a line for each thing that it did."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file

    def add(self, **told: Any) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


class RunScorer:
    """The pairs of one run."""

    def __init__(self, run: Run, events: Events, stopping: threading.Event) -> None:
        self._run, self._events, self._stopping = run, events, stopping
        self._job = Job.here()
        self._stores = Stores()

    def score(self, asked: Sequence[PendingPair]) -> list[str]:
        """Returns what failed."""
        try:
            experiment = self._run.experiment()
            device = _device(experiment)
            pairs = find_pairs(experiment, None, {}, self._stores, damaged={})
            splits = {(pair.store.cohort, pair.split): pair for pair in pairs}
            methods = load_methods(experiment, device, {}, self._stores)
        except (UserError, WorkFailed) as error:
            return self._fail(asked, str(error))
        failed: list[str] = []
        for sources in self._groups(asked):
            there = [step for step in self._run.steps() if step_name(step) in sources]
            predictors: dict[str, Predictor] = {
                **methods,
                **load_checkpoints(self._run, experiment, there, device),
                **self._ways(experiment, sources, device),
            }
            for key in dict.fromkeys((one.cohort, one.split) for one in asked):
                here = [p for p in asked if (p.cohort, p.split) == key and p.source in sources]
                here = [p for p in here if p.source in predictors and key in splits]
                if self._stopping.is_set():
                    log.info("told to stop; the next round takes up what is left")
                    return failed
                failed += self._score_split(splits[key], here, predictors, experiment, device)
        return failed

    def _ways(self, experiment: Experiment, sources: set[str], device: torch.device) -> dict[str, Predictor]:
        """Of the checkpoints that are there."""
        ways: dict[str, Predictor] = {}
        for step in self._run.steps():
            of_step = {InWay(step_name(step), way.label).source: way for way in experiment.evaluation.ways}
            if asked := [way for source, way in of_step.items() if source in sources]:
                ways |= load_ways(self._run, experiment, step, asked, device, self._stores)
        return ways

    def _groups(self, asked: Sequence[PendingPair]) -> Iterator[set[str]]:
        """Sources that share a pass over the patients; one that has failed before goes alone."""
        suspect = {pair.source for pair in failures(self._run)}
        sources = list(dict.fromkeys(pair.source for pair in asked))
        sound = [source for source in sources if source not in suspect]
        yield from (set(sound[i : i + AT_ONCE]) for i in range(0, len(sound), AT_ONCE))
        yield from ({source} for source in sources if source in suspect)

    def _score_split(
        self,
        pair: Pair,
        asked: Sequence[PendingPair],
        predictors: Mapping[str, Predictor],
        experiment: Experiment,
        device: torch.device,
    ) -> list[str]:
        mine = []
        for one in asked:
            if not claim(self._run, one, self._job):
                log.info("%s: another job is at it", one)
            # Asked once it is claimed: before, another may have committed it and released its claim.
            elif is_current(
                self._run, pair, one.source, Expected.of(pair, experiment, one.source, self._stores)
            ):
                release(self._run, one, self._job.id)
            else:
                mine.append(one)
        if not mine:
            return []
        began = time.monotonic()
        chosen = {one.source: predictors[one.source] for one in mine}
        try:
            reasons = score_and_commit(self._run, pair, chosen, experiment, device, Sweep(), self._stores)
        except Exception as error:  # memory, a driver, a disk: whatever it is, other pairs may go well
            log.exception("%s", pair)
            said = (first_line(error) or "no message")[:300]
            reasons = dict.fromkeys(chosen, f"{pair}: {type(error).__name__}: {said}")
        scored = len(chosen) - len(reasons)
        if scored:
            seconds = time.monotonic() - began
            self._events.add(run=str(self._run.path), seconds=seconds, scored=scored * len(pair.cases))
        for one in mine:
            if one.source not in reasons:
                release(self._run, one, self._job.id)
        failed = [one for one in mine if one.source in reasons]
        return [line for one in failed for line in self._fail([one], reasons[one.source])]

    def _fail(self, pairs: Sequence[PendingPair], reason: str) -> list[str]:
        for pair in pairs:
            note_failure(self._run, pair, self._job.id, reason)
            release(self._run, pair, self._job.id)
        log.error("%s", reason)
        return [f"{self._run.path}: {reason}"]


def _device(experiment: Experiment) -> torch.device:
    """Where the job has a GPU that one, whatever training ran on; a job that was to have one must find it."""
    told = "cpu" if experiment.training.device == "cpu" else "auto"
    device = choose_device(experiment, told)
    if device.type == "cpu" and told == "auto" and os.environ.get("XR2CT_REQUIRE_GPU") == "1":
        raise WorkFailed(
            f"{os.uname().nodename}: no CUDA device in a job that asked for one (profile key "
            "evaluator.gpus_per_node, or gpus_per_node); set it to 0 to score on the CPU"
        )
    return device


def _stop_when_told() -> threading.Event:
    """Set by the warning before a time limit and by a request to end."""
    stopping = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    return stopping
