"""How far apart chests lie in the features that optimal transport compares, beside its blur."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.evaluation.pairs import Stores, open_store
from xr2ct.evaluation.sweep import choose_device
from xr2ct.loading.loader import sequential
from xr2ct.methods.neural_ot import Config
from xr2ct.models.features import FeatureExtractor
from xr2ct.run import Run
from xr2ct.transport.spread import spread

METHOD = "neural-ot"
PATIENTS = 32
"""Validation cases at most: a layer of 128³ has 4 million features."""


@dataclass(frozen=True)
class LayerSpread:
    """Of one layer of f."""

    dimension: int
    """Features of a volume."""
    spread: float
    """Mean distance between two cases, in units of features."""
    blur: float
    """That the run's Sinkhorn divergence had in this layer."""
    cases: int


def feature_spread(run: Run) -> list[LayerSpread]:
    """By layer, with the f of the best checkpoint, on the validation split; empty for a method without f.

    With batch statistics f depends on which volumes share a batch: here those next to each other in the
    store, as many as in training. `UserError` where the store is not there or has fewer than two cases.
    """
    experiment: Experiment = run.experiment()
    keys = {"name": METHOD, **experiment.method}
    if keys.pop("name") != METHOD:
        return []
    config = validate(Config, keys, f"method {METHOD}")
    device = choose_device(experiment, None)
    store = open_store(experiment, experiment.data.cohort, Stores())
    cases = store.split("val")[:PATIENTS]
    if len(cases) < 2:
        raise UserError(f"{store.path}: {len(cases)} validation cases; a spread needs two or more")
    features = FeatureExtractor(config.features, experiment.seed)
    features.load_state_dict(load_file(run.best / "features.safetensors"))
    features.to(device)
    batches = sequential(store, cases, experiment.data, batch=experiment.training.batch, device=device)
    with torch.no_grad():
        by_batch = [[layer.cpu() for layer in features(batch.ct)] for batch in batches]
    layers = [torch.cat(parts) for parts in zip(*by_batch, strict=True)]
    blurs = [config.blur] * len(layers)
    if config.blur_of_spread is not None:
        measured = load_file(run.best / "spread.safetensors")["by_layer"]
        blurs = (config.blur_of_spread * measured).tolist()
    return [
        LayerSpread(layer.shape[1], spread(layer).item(), blur, len(cases))
        for layer, blur in zip(layers, blurs, strict=True)
    ]
