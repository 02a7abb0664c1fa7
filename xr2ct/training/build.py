"""The method, its engines and what goes with them, as at step 0."""

from __future__ import annotations

import torch

from xr2ct.config import Experiment
from xr2ct.methods.base import Method
from xr2ct.methods.mappers import method_of
from xr2ct.projection.geometry import Geometry
from xr2ct.run import Run
from xr2ct.seeds import derive_seed
from xr2ct.store import Store
from xr2ct.training import start
from xr2ct.training.agreement import from_rank_0
from xr2ct.training.distributed import Ranks
from xr2ct.training.ema import MovingAverage
from xr2ct.training.engines import Precision, build_engines
from xr2ct.training.fence import Fence
from xr2ct.training.precision import candidates, faster_precision
from xr2ct.training.state import TrainingState, seed_everything
from xr2ct.training.watchdog import alive


def build(run: Run, experiment: Experiment, store: Store, ranks: Ranks, fence: Fence) -> TrainingState:
    """Networks with their initial weights under engines, and RUN/config.yaml written; collective."""
    resolved = from_rank_0(ranks, lambda: start.earlier_resolution(run, experiment, ranks))
    geometry = store.geometries[experiment.data.geometry]
    # What draws from the global generators draws alike in all ranks here, and differently in each from
    # then on.
    seed_everything(derive_seed(experiment.seed, "networks"))
    method = build_method(experiment, geometry, store.cube_mm)
    if resolved is None:
        resolved = from_rank_0(
            ranks,
            lambda: start.resolve(
                run, experiment, store, ranks, choose_precision(experiment, method, geometry, ranks)
            ),
        )
    experiment = experiment.model_copy(update={"resolved": resolved})
    alive()
    engines = build_engines(method, experiment, resolved.precision, ranks)
    from_rank_0(ranks, lambda: start.write_config(run, experiment, fence))
    alive()
    seed_everything(derive_seed(experiment.seed, "training", ranks.rank))
    weights = engines["mapper"].consolidated_weights()
    average = MovingAverage(weights, experiment.training.ema.decay) if ranks.rank == 0 else None
    return TrainingState(experiment, method, engines, ranks, fence, average)


def build_method(experiment: Experiment, geometry: Geometry, cube_mm: float) -> Method:
    """The method that the experiment names; `UserError` for what it cannot take."""
    module, config = method_of(experiment)
    method: Method = module.build(config, experiment, geometry, cube_mm)
    return method


def choose_precision(experiment: Experiment, method: Method, geometry: Geometry, ranks: Ranks) -> Precision:
    """As configured; `auto` is the faster one here, on random inputs of a micro-batch's shape."""
    training, data, coarse = experiment.training, experiment.data, experiment.coarse
    if training.precision != "auto":
        return training.precision
    n = training.batch // (ranks.world_size * training.accumulation)
    views = torch.rand(n, len(data.views), geometry.pixels, geometry.pixels, device=ranks.device)
    origins = None if data.window is None else torch.zeros(n, 3, dtype=torch.int64, device=ranks.device)
    before = None if coarse is None else torch.rand(n, 1, *(coarse.size,) * 3, device=ranks.device)
    among = candidates(ranks.device)
    return faster_precision(method.networks["mapper"], views, None, origins, before, among=among)
