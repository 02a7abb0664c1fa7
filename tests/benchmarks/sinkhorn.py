"""The Sinkhorn divergence of all layers of f, value and gradient, against geomloss called plainly.

Features are f's own, of volumes that look like chests at 64³: some phantoms, each moved and dimmed anew, and
as the mapper's guess the same blurred. f itself is outside what is timed, for both sides need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.harness import Measured, NotMeasured, Row, interleaved

SIZE = 64
Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


@cache
def _chests() -> Tensor:
    """(4, 1, z, y, x) on the unit window."""
    from tests.synthetic_store import chest

    hu = torch.stack([chest(number, "lidc-idri") for number in range(4)])[:, None]
    return ((hu + 1024) / 2500).clamp(0, 1)


def features(batch: int, device: str = "cpu") -> tuple[list[Tensor], list[Tensor]]:
    """Each layer's (batch, features) of guesses and of true chests."""
    from torch.nn.functional import avg_pool3d

    from xr2ct.models.features import Config, FeatureExtractor

    chests = _chests()
    generator = torch.Generator().manual_seed(0)
    moved = []
    for i in range(2 * batch):
        y, x = (int(n) for n in torch.randint(-6, 7, (2,), generator=generator))
        dimmed = 0.9 + 0.2 * torch.rand(1, generator=generator)
        moved.append(chests[i % len(chests)].roll((y, x), (2, 3)) * dimmed)
    f = FeatureExtractor(Config(), 0)
    f.calibrate([chests], lambda summed: summed)
    f.to(device)
    volumes = torch.stack(moved).to(device)
    with torch.no_grad():
        return f(avg_pool3d(volumes[:batch], 5, 1, 2)), f(volumes[batch:])


def _plainly() -> Loss:
    try:
        from geomloss import SamplesLoss
    except ImportError:
        raise NotMeasured("geomloss is not installed: pip install geomloss") from None
    solve = SamplesLoss("sinkhorn", p=2, blur=0.05)
    return lambda x, y: torch.stack([solve(a, b) for a, b in zip(x, y, strict=True)]).sum()


def _gradient(loss: Loss, x: Sequence[Tensor], y: Sequence[Tensor]) -> Sequence[Tensor]:
    points = [layer.detach().requires_grad_() for layer in x]
    return torch.autograd.grad(loss(points, y), points)


def against_geomloss(batch: int, rounds: int = 5) -> Measured:
    """Seconds of each, and how far its gradient is from geomloss's in fp64."""
    from xr2ct.transport.sinkhorn import SinkhornDivergence

    plainly, ours = _plainly(), SinkhornDivergence(0.05)
    x, y = features(batch)
    exact = _gradient(plainly, [layer.double() for layer in x], [layer.double() for layer in y])

    def off(loss: Loss) -> float:
        found = _gradient(loss, x, y)
        return max(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))

    errors = {"gradient_error": off(ours), "peers_gradient_error": off(plainly)}
    if errors["gradient_error"] > 1e-3:
        raise AssertionError(f"a gradient that is {errors['gradient_error']:.1e} off is not the same work")
    return interleaved(
        lambda: _gradient(ours, x, y), lambda: _gradient(plainly, x, y), rounds, batch=batch, **errors
    )


def share_of_an_inner_step(device: Any = "cuda", size: int = SIZE, rounds: int = 10, **made: Any) -> Measured:
    """Seconds of the divergence, and of the update of the mapper that it is a part of, in bf16."""
    from tests.benchmarks.step import paper
    from xr2ct.transport.sinkhorn import SinkhornDivergence

    divergence = SinkhornDivergence(0.05)
    with paper(size, device, **made) as whole:
        batch = next(whole.batches())
        with torch.no_grad():
            y = whole.method.fixed["features"](batch.ct)
        x = [layer.flip(0) + 0.01 for layer in y]
        return interleaved(
            lambda: _gradient(divergence, x, y), lambda: whole.inner_step(batch), rounds, warmup=3,
            batch=len(batch.positions), size=size,
        )  # fmt: skip


ROWS: tuple[Row, ...] = (
    *(
        Row(
            name=f"sinkhorn-{batch}",
            what=f"Sinkhorn divergence and gradient, all layers of f, 64³, batch {batch}",
            peer="geomloss called plainly",
            ratio="peer/ours",
            goal=3.0,
            measure=partial(against_geomloss, batch),
        )
        for batch in (8, 16, 32, 64)
    ),
    Row(
        name="sinkhorn-cuda",
        what="Sinkhorn divergence and gradient, all layers of f, 64³, batch 8",
        peer="an inner step of the paper's recipe in bf16",
        ratio="ours/peer",
        goal=0.02,
        measure=share_of_an_inner_step,
        device="cuda",
    ),
)
