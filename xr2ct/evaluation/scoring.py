"""One pass over the patients of a cohort's split, scoring any number of reconstructions of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from xr2ct.config import Experiment
from xr2ct.errors import WorkFailed
from xr2ct.evaluation.doubt import score_doubt
from xr2ct.evaluation.pairs import Pair
from xr2ct.evaluation.reprojection import project_hu, reprojection_error
from xr2ct.evaluation.results import Row
from xr2ct.evaluation.truth import Truth, read_truths
from xr2ct.loading.loader import sequential
from xr2ct.methods.base import Batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """Reconstructions of a batch, on the unit interval."""

    volumes: Tensor
    """(b, 1, z, y, x)."""
    doubt: Tensor | None = None
    """(b, z, y, x): a standard deviation of each voxel, where there is one."""


Predictor = Callable[[Batch, Sequence[Truth]], Prediction]
"""Of a batch; truths for their HU scale and the X-rays that came in."""

TRUTH = "truth"
"""The truth in a reconstruction's place: its re-projection error is what the volume's grid alone costs."""


def the_truth(batch: Batch, truths: Sequence[Truth]) -> Prediction:
    return Prediction(batch.ct)


def score_pair(
    pair: Pair,
    predictors: Mapping[str, Predictor],
    labels: Mapping[str, Mapping[str, str]],
    experiment: Experiment,
    device: torch.device,
) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Rows by source, and by source why it has none: a reconstruction that is not finite, by case.

    labels: by source, what is the same in all its rows. Volumes, masks and X-rays are read once for all
    sources. Raises `StoreError` for a damaged chunk.
    """
    data, told = experiment.data, experiment.evaluation
    cases = {case.id: case for case in pair.cases}
    rows: dict[str, list[Row]] = {source: [] for source in predictors}
    failures: dict[str, str] = {}
    batches = sequential(pair.store, pair.cases, data, batch=told.batch, device=device)
    with tqdm(total=len(cases), desc=str(pair), unit="patient", disable=None) as progress:
        for batch in batches:
            truths = read_truths(pair.store, cases, batch, data, reproject=told.reprojection)
            for source in list(rows):
                try:
                    scored = _score(source, predictors[source](batch, truths), truths, pair, experiment)
                except WorkFailed as failure:
                    failures[source] = f"{pair}, {source}: {failure}"
                    del rows[source]
                    continue
                rows[source] += [
                    {"case": truth.case, "patient": cases[truth.case].patient, **labels[source], **scores}
                    for truth, scores in zip(truths, scored, strict=True)
                ]
            progress.update(len(truths))
    return rows, failures


def _score(
    source: str, prediction: Prediction, truths: Sequence[Truth], pair: Pair, experiment: Experiment
) -> list[dict[str, float]]:
    """Every metric of each volume of a batch."""
    volumes = prediction.volumes[:, 0].float()
    for volume, truth in zip(volumes, truths, strict=True):
        if not torch.isfinite(volume).all():
            raise WorkFailed(f"case {truth.case}: the reconstruction is not finite")
    scores: list[dict[str, float]] = [{} for _ in truths]
    if source != TRUTH:
        scores = [t.reference.score(volume) for volume, t in zip(volumes, truths, strict=True)]
    if prediction.doubt is not None:
        for score, volume, doubt, truth in zip(scores, volumes, prediction.doubt, truths, strict=True):
            score |= score_doubt(volume, doubt, truth)
    if experiment.evaluation.reprojection:
        data = experiment.data
        hu = torch.stack([t.window.to_hu(volume) for volume, t in zip(volumes, truths, strict=True)])
        again = project_hu(hu, pair.store.cube_mm, pair.store.geometries[data.geometry], data.views)
        for score, lines, truth in zip(scores, again, truths, strict=True):
            assert truth.line_integrals is not None
            score |= reprojection_error(lines, truth.line_integrals)
    return scores
