"""Updates under DeepSpeed against plain PyTorch on one process: any ranks, accumulation, stage, precision."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_rank
import pytest
import torch
from geomloss import SamplesLoss
from torch import Tensor, nn

from xr2ct.training.distributed import Ranks

Found = dict[str, Any]
Weights = dict[str, dict[str, Tensor]]
Gradients = dict[str, list[dict[str, Tensor]]]

pytestmark = pytest.mark.slow

TASKS = {
    1: ("exactness", "regression", "adversary", "frozen", "refused"),
    2: ("exactness", "regression", "adversary", "wrong", "stages", "resume"),
    4: ("exactness",),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Found]:
    """What so many ranks found; they run once, when first asked for."""
    kept: dict[int, Found | str] = {}

    def run(world_size: int) -> Found:
        if world_size not in kept:
            kept[world_size] = _spawn(world_size, tmp_path_factory.mktemp(f"ranks-{world_size}"))
        result = kept[world_size]
        assert not isinstance(result, str), result
        return result

    return run


def _spawn(world_size: int, folder: Path) -> Found | str:
    """What rank 0 wrote, or the end of its log where a rank failed."""
    shared = {
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "XR2CT_RENDEZVOUS": str(folder / "rendezvous"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, engine_rank.__file__, str(folder / "found.pt"), *TASKS[world_size]]
    ranks = []
    for rank in range(world_size):
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with (folder / f"rank-{rank}.log").open("w") as log:
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        codes = [rank.wait(timeout=500) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    if any(codes):
        return (folder / "rank-0.log").read_text()[-3000:]
    result: Found = torch.load(folder / "found.pt", weights_only=False)
    return result


@functools.cache
def _reference(steps: int) -> tuple[Gradients, list[dict[str, float]], Weights]:
    """The recipe's two losses over whole batches by plain autograd and AdamW, in fp64."""
    method = engine_rank.small_method()
    f = method.features.double()
    g, d = (method.networks[name].double() for name in ("mapper", "potential"))
    divergence = SamplesLoss("sinkhorn", p=2, blur=0.05)
    data = (engine_rank.global_batch(index, torch.float64) for index in range(1000))
    f.calibrate([next(data)[0] for _ in range(2)], lambda total: total)
    adam_g, adam_d = (
        torch.optim.AdamW(n.parameters(), lr=engine_rank.LR, eps=1e-3, weight_decay=1e-5) for n in (g, d)
    )
    gradients: Gradients = {"mapper": [], "potential": []}
    losses = []
    for _ in range(steps):
        of_mapper = []
        for _ in range(2):
            real, views = next(data)
            mapped = g(views)
            transport = sum(divergence(x, y) for x, y in zip(f(mapped), f(real), strict=True))
            loss = 0.1 * transport - 0.1 * d(mapped).mean()
            gradients["mapper"].append(_update(loss, g, adam_g))
            of_mapper.append(loss.item())
        real, views = next(data)
        loss = 100 * (d(g(views).detach()).mean() - d(real).mean())
        gradients["potential"].append(_update(loss, d, adam_d))
        losses.append({"loss/mapper": sum(of_mapper) / 2, "loss/potential": loss.item()})
    return gradients, losses, {"mapper": g.state_dict(), "potential": d.state_dict()}


def _update(loss: Tensor, network: nn.Module, adam: torch.optim.Optimizer) -> dict[str, Tensor]:
    adam.zero_grad()
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    adam.step()
    return dict(zip(names, gradients, strict=True))


def _each(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest relative error of a parameter.

    One that the loss does not depend on, such as the potential's last bias, has only rounding for a gradient:
    none counts as smaller than 1e-3 of the largest.
    """
    floor = 1e-3 * max(t.norm() for t in theirs.values())
    return max(((ours[n] - t).norm() / t.norm().clamp(min=floor)).item() for n, t in theirs.items())


def _whole(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Relative error of all parameters as one vector.

    For fp32, where a LeakyReLU on the other side of its kink shows in a single small parameter.
    """
    return ((_flat(ours).double() - _flat(theirs)).norm() / _flat(theirs).norm()).item()


def _flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([w.detach().flatten() for w in weights.values()])


def _errors(run: Found, gradients: Gradients, error: Callable[..., float]) -> list[float]:
    return [
        error(ours, theirs)
        for name in gradients
        for ours, theirs in zip(run["gradients"][name], gradients[name], strict=True)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "error", "bound"), [(torch.float64, _each, 1e-9), (torch.float32, _whole, 1e-3)]
)
def test_reduced_gradients_are_those_of_one_process(
    found: Callable[[int], Found],
    world_size: int,
    accumulation: int,
    dtype: torch.dtype,
    error: Callable[..., float],
    bound: float,
) -> None:
    """Of each mapper update and each potential update, the potential's term in the former included."""
    run = found(world_size)["exactness"][dtype, accumulation]
    gradients, losses, weights = _reference(len(run["losses"]))
    errors = _errors(run, gradients, error)
    print(f"{world_size} ranks × {accumulation}, {dtype}: {max(errors):.1e}")
    assert max(errors) < bound
    assert error(run["weights"]["mapper"], weights["mapper"]) < bound
    for ours, theirs in zip(run["losses"], losses, strict=True):
        assert {k: ours[k] for k in theirs} == pytest.approx(theirs, rel=bound)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(("loss", "mean"), [("l1", nn.functional.l1_loss), ("mse", nn.functional.mse_loss)])
def test_regression_is_over_the_global_batch(
    found: Callable[[int], Found],
    world_size: int,
    accumulation: int,
    loss: str,
    mean: Callable[[Tensor, Tensor], Tensor],
) -> None:
    run = found(world_size)["regression"][loss, accumulation]
    g = engine_rank.small_regression(loss).networks["mapper"].double()
    adam = torch.optim.AdamW(g.parameters(), lr=engine_rank.LR, eps=1e-3, weight_decay=1e-5)
    losses, gradients = [], []
    for index in range(2):
        real, views = engine_rank.global_batch(index, torch.float64)
        of_batch = mean(g(views), real)
        gradients.append(_update(of_batch, g, adam))
        losses.append(of_batch.item())
    assert max(_errors(run, {"mapper": gradients}, _each)) < 1e-9
    assert run["losses"] == pytest.approx({"loss/mapper": sum(losses) / 2}, rel=1e-9)


@functools.cache
def _adversaries() -> tuple[Gradients, dict[str, float]]:
    """X2CT-GAN's losses over whole batches, as published, by plain autograd and AdamW in fp64."""
    method = engine_rank.small_gan()
    g, d = (method.networks[name].double() for name in ("mapper", "discriminator"))
    adam_g, adam_d = (
        torch.optim.AdamW(n.parameters(), lr=engine_rank.LR, eps=1e-3, weight_decay=1e-5) for n in (g, d)
    )
    gradients: Gradients = {"mapper": [], "discriminator": []}
    losses: dict[str, list[float]] = {name: [] for name in ("mapper", "adversarial", "discriminator")}
    for batch in itertools.islice(engine_rank.batches(Ranks(0, 1, 0, torch.device("cpu")), torch.float64), 2):
        lifted = method.repeat(batch.views)
        made = g(*batch.inputs)
        fooled = (d(torch.cat([made, lifted], 1)) - 1).square().mean()
        flat = sum((made.mean(a) - batch.ct.mean(a)).abs().mean() for a in (2, 3, 4)) / 3
        loss = 0.1 * fooled + 10 * (made - batch.ct).square().mean() + 10 * flat
        gradients["mapper"].append(_update(loss, g, adam_g))
        of_made, of_real = (d(torch.cat([v, lifted], 1)) for v in (made.detach(), batch.ct))
        caught = 0.5 * of_made.square().mean() + 0.5 * (of_real - 1).square().mean()
        gradients["discriminator"].append(_update(caught, d, adam_d))
        for name, value in zip(losses, (loss, fooled, caught), strict=True):
            losses[name].append(value.item())
    return gradients, {f"loss/{name}": sum(values) / 2 for name, values in losses.items()}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "accumulation", "stage", "error", "bound"),
    [(torch.float64, accumulation, 0, _each, 1e-9) for accumulation in (1, 2)]
    + [(torch.float32, 2, stage, _whole, 5e-3) for stage in range(4)],
)
def test_adversaries_are_those_of_one_process(
    found: Callable[[int], Found],
    world_size: int,
    dtype: torch.dtype,
    accumulation: int,
    stage: int,
    error: Callable[..., float],
    bound: float,
) -> None:
    """The published losses, the discriminator's term and dropout included, and under every ZeRO stage."""
    run = found(world_size)["adversary"][dtype, accumulation, stage]
    gradients, losses = _adversaries()
    assert max(_errors(run, gradients, error)) < bound
    assert {name: run["losses"][name] for name in losses} == pytest.approx(losses, rel=bound)


@pytest.mark.parametrize("mistake", ["each rank", "unsummed"])
def test_a_wrong_exchange_would_be_seen(found: Callable[[int], Found], mistake: str) -> None:
    gradients, _, _ = _reference(1)
    assert _whole(found(2)["wrong"][mistake]["gradients"]["mapper"][0], gradients["mapper"][0]) > 0.05


def test_features_are_calibrated_alike_by_any_number_of_ranks(found: Callable[[int], Found]) -> None:
    one, *others = (found(n)["exactness"][torch.float64, 1]["features"] for n in (1, 2, 4))
    for other in others:
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stage", range(4))
def test_zero_stages_agree_in_fp32(found: Callable[[int], Found], stage: int) -> None:
    gradients, _, weights = _reference(2)
    run = found(2)["stages"]["fp32", stage]
    assert max(_errors(run, gradients, _whole)) < 1e-3
    for name in weights:
        assert _whole(run["weights"][name], weights[name]) < 1e-3


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.02), ("fp16", 0.002)])
@pytest.mark.parametrize("stage", range(4))
def test_half_precision_steps_are_close_to_fp32(
    found: Callable[[int], Found], precision: str, bound: float, stage: int
) -> None:
    """The losses, and how far the weights moved and where to: a wrong loss scale would show in these."""
    run = found(2)["stages"][precision, stage]
    _, (losses,), weights = _reference(1)
    assert run["skipped"] == 0
    assert run["losses"][0]["loss/mapper"] == pytest.approx(losses["loss/mapper"], rel=bound)
    for name, network in engine_rank.small_method().networks.items():
        start = _flat(dict(network.named_parameters()))
        moved, should = _flat(run["weights"][name]) - start, _flat(weights[name]).float() - start
        assert moved.dtype == torch.float32
        assert moved.norm().item() == pytest.approx(should.norm().item(), rel=0.05)
        assert torch.cosine_similarity(moved, should, dim=0) > 0.95


def test_saved_engines_go_on_to_the_bit(found: Callable[[int], Found]) -> None:
    for key, run in found(2)["resume"].items():
        (losses, weights), (losses_again, weights_again) = run["ahead"], run["again"]
        assert losses == losses_again, key
        for name in weights:
            for parameter, value in weights[name].items():
                assert torch.equal(value, weights_again[name][parameter]), (key, name, parameter)
        assert [state["place"] for state in run["state"]] == [5, 5]


@pytest.mark.parametrize("stage", [0, 3])
def test_a_held_network_stays_as_it_is(found: Callable[[int], Found], stage: int) -> None:
    run = found(1)["frozen"][stage]
    start, after_mapper, after_potential = run["weights"]
    assert run["no gradient left"]
    assert _same(start["potential"], after_mapper["potential"])
    assert not _same(start["mapper"], after_mapper["mapper"])
    assert _same(after_mapper["mapper"], after_potential["mapper"])
    assert not _same(after_mapper["potential"], after_potential["potential"])


def test_wrong_requests_are_refused_in_a_line(found: Callable[[int], Found]) -> None:
    said = found(1)["refused"]
    assert said["precision"] == "training.precision fp16: not what this cpu computes in; use auto"
    assert "overlap_com" in said["key"]
    assert "unsupported mix" in said["mix"]
    assert said["scale"].startswith("the mapper's fp16 gradients overflow at the smallest loss scale")


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)
