"""Optimal transport of sub-volumes: of themselves, and of the chest that they are set into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from plain_engine import Plain

from xr2ct.config import Experiment
from xr2ct.methods.base import Batch
from xr2ct.methods.neural_ot import NeuralOT
from xr2ct.projection.geometry import Geometry
from xr2ct.training.build import build_method
from xr2ct.training.start import completed
from xr2ct.transport.sinkhorn import SinkhornDivergence

SIZE, WINDOW, COARSE, PIXELS = 64, 16, 32, 16
GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=PIXELS)


def _method(accumulation: int = 1) -> NeuralOT:
    experiment = Experiment(
        name="test",
        data={"size": SIZE, "window": WINDOW, "views": [90, 0]},
        coarse={"run": "before", "size": COARSE},
        mapper={"name": "unet", "channels": [4, 8]},
        method={
            "name": "neural-ot",
            "mapper_updates": 1,
            "potential": {"base_channels": 2, "max_channels": 4},
            "features": {"widths": (2, 2, 4, 4), "calibration_batches": 1},
        },
        training={"batch": 4, "accumulation": accumulation},
    )
    assert (experiment.context_side, experiment.window_step) == (16, 4)
    method = build_method(completed(experiment), GEOMETRY, 320.0)
    assert isinstance(method, NeuralOT)
    return method


def _batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield Batch(
            ct=torch.rand(4, 1, *(WINDOW,) * 3, generator=generator),
            views=torch.rand(4, 2, PIXELS, PIXELS, generator=generator),
            positions=(0, 1, 2, 3),
            cases=("a", "b", "c", "d"),
            origins=torch.randint(0, 13, (4, 3), generator=generator) * 4,
            coarse=torch.rand(4, 1, *(COARSE,) * 3, generator=generator),
            context=torch.rand(4, 1, *(16,) * 3, generator=generator),
        )


def test_the_mappers_loss_is_of_the_sub_volume_and_of_the_chest_around_it() -> None:
    """Against the same put together by slices, in the loss and in its gradient."""
    method = _method()
    batches = _batches()
    method.prepare(batches)
    batch = next(batches)
    assert batch.coarse is not None and batch.context is not None and batch.origins is not None
    volumes = torch.rand(batch.ct.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    d = Plain(method.networks["potential"])

    def chest(whole: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        whole = whole.clone()
        for sample, (z, y, x) in enumerate((batch.origins // 4).tolist()):  # type: ignore[operator]
            whole[sample, :, z : z + 4, y : y + 4, x : x + 4] = F.avg_pool3d(parts[sample], 4)
        return whole

    f, divergence = method.features, SinkhornDivergence()
    alone = divergence(f(volumes), f(batch.ct))
    around = divergence(f(chest(F.avg_pool3d(batch.coarse, 2), volumes)), f(chest(batch.context, batch.ct)))
    score = d.network(volumes).mean()
    loss = 0.1 * (alone + around) - 0.1 * score
    (expected,) = torch.autograd.grad(loss, volumes)

    gradient, losses = method.mapper_loss([volumes.detach()], d, batch)
    torch.testing.assert_close(losses["transport_around"], around.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(losses["mapper"], loss.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert around > 0


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_a_step_on_sub_volumes_is_the_same_in_micro_batches(accumulation: int) -> None:
    found = []
    for parts in (1, accumulation):
        torch.manual_seed(0)
        method = _method(parts)
        batches = _batches()
        method.prepare(batches)
        engines = {name: Plain(network, parts) for name, network in method.networks.items()}
        found.append(method.step(engines, batches))
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-4)
    assert set(found[0]) >= {"loss/transport", "loss/transport_around", "loss/potential"}
