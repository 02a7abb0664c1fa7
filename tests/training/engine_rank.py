"""One rank of the engines' tests: small networks, real DeepSpeed. `python engine_rank.py OUT TASK ...`.

Every rank runs the tasks; rank 0 writes what they return to OUT. The networks are small so that it is quick:
what is tested is what lies between them.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.methods import gan, neural_ot
from xr2ct.methods.base import Batch, Method
from xr2ct.methods.regression import Config as RegressionConfig
from xr2ct.methods.regression import Regression
from xr2ct.models.features import FeatureExtractor
from xr2ct.models.initial import seeded_weights
from xr2ct.models.potential import Potential
from xr2ct.projection.geometry import Geometry
from xr2ct.training.distributed import Ranks, start_distributed
from xr2ct.training.engines import DeepSpeedNetwork, build_engines
from xr2ct.transport import sinkhorn

SIZE, BATCH = 16, 8
LR = 1e-2


class SmallMapper(nn.Module):
    """Two views, each spread along one axis, and two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 4, 3, padding=1)
        self.second = nn.Conv3d(4, 1, 3, padding=1)

    def forward(self, views: Tensor, seeds: Tensor | None = None) -> Tensor:
        front = views[:, 0, :, None, :].expand(-1, SIZE, SIZE, SIZE)
        side = views[:, 1, :, :, None].expand(-1, SIZE, SIZE, SIZE)
        lifted = torch.stack([front, side], dim=1).to(self.first.weight.dtype)
        return self.second(torch.tanh(self.first(lifted)))


def small_method() -> neural_ot.NeuralOT:
    """Two mapper updates a step."""
    config = neural_ot.Config(
        mapper_updates=2,
        potential={"base_channels": 4, "max_channels": 8},
        features={"widths": (4, 4, 8, 8), "calibration_batches": 2},
    )
    with seeded_weights(0, "small"):
        mapper, potential = SmallMapper(), Potential(config.potential, SIZE)
    return neural_ot.NeuralOT(config, mapper, potential, FeatureExtractor(config.features, 0))  # type: ignore[arg-type]


def small_regression(loss: Any) -> Regression:
    """Two mapper updates a step."""
    with seeded_weights(0, "small"):
        return Regression(RegressionConfig(loss=loss, mapper_updates=2), SmallMapper())  # type: ignore[arg-type]


def small_gan() -> gan.Gan:
    """X2CT-GAN with dropout and the heads that it does not use, two updates a step."""
    mapper = {"name": "x2ct-gan", "encoder_channels": 4, "growth": 2, "blocks": (1, 1, 1, 1, 1)}
    told = Experiment(
        name="small",
        data={"size": SIZE, "views": [0, 90]},
        mapper={**mapper, "bottom_channels": 8, "least_channels": 2},
    )
    config = gan.Config(updates=2, discriminator={"base_channels": 2})
    return gan.build(config, told, Geometry("small", 541.0, 949.0, 500.0, pixels=SIZE), 320.0)


def experiment(accumulation: int = 1, zero_stage: int = 0, **deepspeed: Any) -> Experiment:
    return Experiment(
        name="small",
        data={"size": SIZE},
        training={
            "batch": BATCH,
            "accumulation": accumulation,
            "zero_stage": zero_stage,
            "warmup_steps": 0,
        },
        deepspeed=deepspeed,
    )


def global_batch(index: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Volumes and views of the global batch of that index."""
    generator = torch.Generator().manual_seed(index)
    ct = torch.rand(BATCH, 1, SIZE, SIZE, SIZE, generator=generator, dtype=torch.float64)
    views = torch.stack([ct[:, 0].mean(2), ct[:, 0].mean(3)], dim=1) * 2
    return ct.to(dtype), views.to(dtype)


def batches(ranks: Ranks, dtype: torch.dtype = torch.float32, first: int = 0) -> Iterator[Batch]:
    """This rank's share of the endless sequence of global batches."""
    index, share = first, BATCH // ranks.world_size
    own = slice(ranks.rank * share, (ranks.rank + 1) * share)
    while True:
        ct, views = global_batch(index, dtype)
        yield Batch(ct[own], views[own], tuple(range(BATCH))[own], ("",) * share)
        index += 1


class Recorded:
    """An engine that keeps the reduced gradients of each update."""

    def __init__(self, engine: DeepSpeedNetwork) -> None:
        self._engine = engine
        self.gradients: list[dict[str, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self._engine(*inputs)

    def step(self) -> None:
        from deepspeed.utils import safe_get_full_grad

        found = [(n, p, safe_get_full_grad(p)) for n, p in self._engine.module.named_parameters()]
        self.gradients.append({n: torch.zeros_like(p) if g is None else g.clone() for n, p, g in found})
        self._engine.step()


def train(
    ranks: Ranks,
    precision: Any,
    dtype: torch.dtype = torch.float32,
    *,
    accumulation: int = 1,
    zero_stage: int = 0,
    steps: int = 2,
) -> dict[str, Any]:
    """Gradients of every update, losses of every step and the weights at the end."""
    method, engines = started(ranks, precision, dtype, accumulation, zero_stage)
    recorded = {name: Recorded(engine) for name, engine in engines.items()}
    data = batches(ranks, dtype)
    method.prepare(data)
    return {
        "losses": [method.step(recorded, data) for _ in range(steps)],  # type: ignore[arg-type]
        "gradients": {name: engine.gradients for name, engine in recorded.items()},
        "weights": {name: engine.consolidated_weights() for name, engine in engines.items()},
        "features": method.features.state_dict(),
        "skipped": sum(engine.skipped_steps for engine in engines.values()),
    }


def started(
    ranks: Ranks, precision: Any, dtype: torch.dtype, accumulation: int, zero_stage: int
) -> tuple[neural_ot.NeuralOT, dict[str, DeepSpeedNetwork]]:
    """The method and its engines, ready for the first step."""
    method = small_method()
    return method, engines_of(method, ranks, precision, dtype, accumulation, zero_stage)


def engines_of(
    method: Method, ranks: Ranks, precision: Any, dtype: torch.dtype, accumulation: int, zero_stage: int = 0
) -> dict[str, DeepSpeedNetwork]:
    for network in [*method.networks.values(), *method.fixed.values()]:
        network.to(dtype)
    told = experiment(accumulation, zero_stage, fp16={"initial_scale_power": 4})
    engines = build_engines(method, told, precision, ranks)
    for engine in engines.values():
        engine.set_lr(LR)
        if dtype == torch.float64:
            allow_fp64(engine)
    return engines


def allow_fp64(network: DeepSpeedNetwork) -> None:
    """DeepSpeed reduces fp64 too, but does not list it among what a CPU supports, nor as an option."""
    from deepspeed.accelerator import get_accelerator

    get_accelerator().supported_dtypes = lambda: [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    network._engine.communication_data_type = torch.float64


def exactness(ranks: Ranks) -> Any:
    """Accumulation 1 and 2 in fp64 and fp32."""
    return {
        (dtype, accumulation): train(ranks, "fp32", dtype, accumulation=accumulation, steps=steps)
        for dtype, steps in ((torch.float64, 2), (torch.float32, 1))
        for accumulation in (1, 2)
    }


def regression(ranks: Ranks) -> Any:
    """Both losses with accumulation 1 and 2, in fp64."""
    found = {}
    for loss, accumulation in itertools.product(("l1", "mse"), (1, 2)):
        method = small_regression(loss)
        engines = engines_of(method, ranks, "fp32", torch.float64, accumulation)
        mapper = Recorded(engines["mapper"])
        losses = method.step({"mapper": mapper}, batches(ranks, torch.float64))  # type: ignore[dict-item]
        found[loss, accumulation] = {"losses": losses, "gradients": {"mapper": mapper.gradients}}
    return found


def adversary(ranks: Ranks) -> Any:
    """X2CT-GAN in fp64 with accumulation 1 and 2, and in fp32 by ZeRO stage."""
    ways = [(torch.float64, accumulation, 0) for accumulation in (1, 2)]
    ways += [(torch.float32, 2, stage) for stage in range(4)]
    found = {}
    for dtype, accumulation, stage in ways:
        method = small_gan()
        engines = engines_of(method, ranks, "fp32", dtype, accumulation, stage)
        recorded = {name: Recorded(engine) for name, engine in engines.items()}
        losses = method.step(recorded, batches(ranks, dtype))  # type: ignore[arg-type]
        gradients = {name: engine.gradients for name, engine in recorded.items()}
        found[dtype, accumulation, stage] = {"losses": losses, "gradients": gradients}
    return found


def wrong(ranks: Ranks) -> Any:
    """What two mistakes do to the gradients: each rank alone, and a gradient not summed over ranks."""
    right = {name: getattr(sinkhorn, name) for name in ("to_slices", "from_slices", "total")}
    alone = {"to_slices": lambda own: own, "from_slices": lambda sliced, _: sliced, "total": lambda own: own}
    # The one scalar that is summed is the slope of the loss.
    unsummed = {"total": lambda own: own if own.ndim == 0 else right["total"](own)}
    found = {}
    for name, mistake in {"each rank": alone, "unsummed": unsummed}.items():
        for function, of in (right | mistake).items():
            setattr(sinkhorn, function, of)
        found[name] = train(ranks, "fp32", torch.float64, steps=1)
    for function, of in right.items():
        setattr(sinkhorn, function, of)
    return found


def stages(ranks: Ranks) -> Any:
    """ZeRO 0 to 3 in every precision, with accumulation."""
    from deepspeed.accelerator import get_accelerator

    # A CPU without half-precision instructions computes in fp16 all the same, slowly.
    get_accelerator().is_fp16_supported = lambda: True
    return {
        (precision, stage): train(ranks, precision, accumulation=2, zero_stage=stage, steps=steps)
        for precision, steps in (("fp32", 2), ("bf16", 1), ("fp16", 1))
        for stage in range(4)
    }


def resume(ranks: Ranks) -> Any:
    """A second step after saving, and again after loading into new engines: losses and weights."""
    found = {}
    for precision, stage in [("fp32", 0), ("fp32", 1), ("fp32", 2), ("fp32", 3), ("bf16", 0)]:
        folder = Path(sys.argv[1]).parent / f"{precision}-{stage}"
        method, engines = started(ranks, precision, torch.float32, 1, stage)
        data = batches(ranks)
        method.prepare(data)
        method.step(engines, data)
        for name, engine in engines.items():
            engine.save(folder / name, {"place": 5})
        ahead = [method.step(engines, data), weights(engines)]

        again, engines = started(ranks, precision, torch.float32, 1, stage)
        again.features.load_state_dict(method.features.state_dict())
        states = [engine.load(folder / name) for name, engine in engines.items()]
        found[precision, stage] = {
            "ahead": ahead,
            "again": [again.step(engines, batches(ranks, first=5)), weights(engines)],
            "state": states,
        }
    return found


def frozen(ranks: Ranks) -> Any:
    """The weights of both networks before and after an update of each, by ZeRO stage."""
    found = {}
    for stage in (0, 3):
        method, engines = started(ranks, "fp32", torch.float32, 1, stage)
        data = batches(ranks)
        method.prepare(data)
        mapper, potential = engines["mapper"], engines["potential"]
        seen = [weights(engines)]
        method.update_mapper(mapper, potential, next(data))
        without = [p.grad is None for p in potential.module.parameters()]
        seen.append(weights(engines))
        method.update_potential(mapper, potential, next(data))
        without += [p.grad is None for p in mapper.module.parameters()]
        seen.append(weights(engines))
        found[stage] = {"weights": seen, "no gradient left": all(without)}
    return found


def refused(ranks: Ranks) -> Any:
    """What is said of wrong requests, and where fp16 cannot go on."""
    from deepspeed.accelerator import get_accelerator

    def said(precision: Any, stage: int, **keys: Any) -> str:
        try:
            build_engines(small_method(), experiment(1, stage, **keys), precision, ranks)
        except UserError as error:
            return str(error)
        return "nothing"

    get_accelerator().is_fp16_supported = lambda: False
    found = {
        "precision": said("fp16", 0),
        "key": said("fp32", 1, zero_optimization={"overlap_com": True}),
        "mix": said("bf16", 0, data_types={"grad_accum_dtype": "fp32"}),
    }
    get_accelerator().is_fp16_supported = lambda: True
    smallest = {"initial_scale_power": 0, "min_loss_scale": 1, "hysteresis": 1}
    method = small_method()
    mapper = build_engines(method, experiment(1, 1, fp16=smallest), "fp16", ranks)["mapper"]
    volume = mapper(next(batches(ranks)).views)
    mapper.backward(volume, torch.full_like(volume, torch.inf, dtype=torch.float32))
    try:
        mapper.step()
    except WorkFailed as error:
        found["scale"] = str(error)
    return found


def weights(engines: dict[str, DeepSpeedNetwork]) -> dict[str, dict[str, Tensor]]:
    return {name: engine.consolidated_weights() for name, engine in engines.items()}


_ALL = (exactness, regression, adversary, wrong, stages, resume, frozen, refused)
TASKS = {task.__name__: task for task in _ALL}

if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks = start_distributed("cpu")
    results = {name: TASKS[name](ranks) for name in sys.argv[2:]}
    if ranks.rank == 0:
        torch.save(results, Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
