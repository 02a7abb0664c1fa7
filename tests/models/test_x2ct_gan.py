"""X2CT-GAN's generator: the published counts, the frames in which views meet, and what follows from what."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from xr2ct.config import Experiment, validate
from xr2ct.errors import UserError
from xr2ct.models import x2ct_gan
from xr2ct.models.lift import RepeatLift
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.models.view_axes import to_patient, to_view
from xr2ct.projection.geometry import EIGHT_ANGLES, Geometry

SMALL = {
    "encoder_channels": 4,
    "growth": 2,
    "blocks": (1, 1, 1, 1, 1),
    "bottom_channels": 8,
    "least_channels": 2,
}
GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)


def _millions(network: nn.Module) -> float:
    return round(sum(p.numel() for p in network.parameters()) / 1e6, 2)


def _small(views: Sequence[float], size: int = 16, dropout: float = 0.5) -> x2ct_gan.Generator:
    torch.manual_seed(0)
    generator = x2ct_gan.build(x2ct_gan.Config(**SMALL, dropout=dropout), views, GEOMETRY, size)
    return generator.double()  # a norm of a few voxels makes much of rounding


def _views(count: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, count, 32, 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("views", "size", "millions"),
    [([0, 90], 128, 61.74), ([0], 128, 29.38), ([0, 90], 64, 51.55), ([0], 64, 24.30), ([0, 90], 256, 71.91)],
)
def test_parameters_are_the_published_ones_at_128(views: list[float], size: int, millions: float) -> None:
    with torch.device("meta"):
        generator = x2ct_gan.build(x2ct_gan.Config(), views, GEOMETRY, size)
    assert _millions(generator) == millions
    if size == 128:
        assert _millions(generator.branches[0]) == 29.38


def test_stages_are_the_published_ones_at_128() -> None:
    with torch.device("meta"):
        branch = x2ct_gan.build(x2ct_gan.Config(), [0], GEOMETRY, 128).branches[0]
        assert branch.encoder.channels == [64, 128, 256, 512, 512, 704]
        features = branch.encoder(torch.empty(1, 1, 128, 128))
        bottom, skips = branch.encode(torch.empty(1, 1, 128, 128), None, None)
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (512, 8, 8), (704, 4, 4)
    ]  # fmt: skip
    sides = {8: 128, 16: 64, 32: 32, 64: 16, 128: 16}
    assert bottom.shape[1:] == (256, 4, 4, 4)
    assert [tuple(s.shape[1:]) for s in skips] == [(c, side, side, side) for side, c in sides.items()]


@pytest.mark.parametrize(("size", "nearest"), [(48, 64), (8, 16), (0, 16), (100, 128), (96, 128)])
def test_a_size_that_no_doublings_of_4_reach_is_refused(size: int, nearest: int) -> None:
    with pytest.raises(UserError, match=f"data.size {size}: x2ct-gan .* nearest is {nearest}$"):
        x2ct_gan.build(x2ct_gan.Config(**SMALL), [0.0], GEOMETRY, size)


@pytest.mark.parametrize("angle", [*EIGHT_ANGLES, 20.0, 110.0, 250.0])
def test_copies_of_a_picture_lie_in_the_patient_where_repeat_puts_them(angle: float) -> None:
    picture = torch.rand(1, 1, 32, 32)
    depth = picture.expand(32, -1, -1, -1).transpose(0, 1)
    lifted = RepeatLift([angle], GEOMETRY, 320.0, 32, "stretch")(picture)
    torch.testing.assert_close(to_patient(depth, angle), lifted[0])


@pytest.mark.parametrize(
    ("angle", "axis", "sign"), [(0.0, 1, +1), (180.0, 1, -1), (90.0, 2, -1), (270.0, 2, +1), (60.0, 2, -1)]
)
def test_depth_counts_from_the_source_on(angle: float, axis: int, sign: int) -> None:
    """The source of 0° is in front, where y is least; that of 90° at the left, where x is most."""
    ramp = torch.arange(4.0)[:, None, None].expand(4, 4, 4)
    turned = to_patient(ramp, angle)
    expected = ramp if sign > 0 else ramp.flip(0)
    assert torch.equal(turned.movedim(axis, 0), expected)


@pytest.mark.parametrize("angle", EIGHT_ANGLES)
def test_there_and_back_is_where_it_was(angle: float) -> None:
    features = torch.rand(2, 3, 4, 4, 4)
    assert torch.equal(to_view(to_patient(features, angle), angle), features)


@pytest.mark.parametrize("views", [[0.0], [0.0, 90.0], [90.0, 180.0, 60.0]])
@pytest.mark.parametrize("turn", [90.0, 180.0, 270.0])
def test_pictures_of_views_turned_about_the_head_give_what_meets_in_the_patient_turned(
    views: list[float], turn: float
) -> None:
    """What connection C fuses from the same pictures and weights; of one view, its volume."""
    straight, turned = (_met(views, by) for by in (0.0, turn))
    # From the front, −y, a view goes to the left, +x: axes turn from x to y.
    expected = torch.rot90(straight, round(turn / 90), dims=(4, 3))
    torch.testing.assert_close(turned, expected, rtol=1e-9, atol=1e-9)
    assert (turned - straight).abs().max() > 0.1 * straight.std()


def _met(views: list[float], turn: float) -> Tensor:
    """(b, c, z, y, x): the finest features that views meet in, with views turned."""
    generator = _small([(a + turn) % 360 for a in views]).eval()
    skips: list[Tensor] = []
    if len(views) > 1:
        generator.levels[-1].register_forward_pre_hook(lambda _, inputs: skips.append(inputs[1]))
    with torch.no_grad():
        volume = generator(_views(len(views)))
    return skips[0] if skips else volume


def test_views_that_change_places_change_nothing_but_the_frame() -> None:
    """Branches with each other's weights and pictures make the same volume: each sees its view as its own."""
    one, other = _small([0.0, 90.0]).eval(), _small([90.0, 0.0]).eval()
    weights = one.state_dict()
    swap = {"branches.0.": "branches.1.", "branches.1.": "branches.0."}
    other.load_state_dict({swap.get(n[:11], n[:11]) + n[11:]: w for n, w in weights.items()})
    views = _views(2)
    with torch.no_grad():
        torch.testing.assert_close(other(views.flip(1)), one(views), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("views", [[0.0], [0.0, 90.0], [0.0, 90.0, 225.0]])
def test_gradients_reach_every_view_and_every_weight_in_use(views: list[float]) -> None:
    generator = _small(views)
    seen = _views(len(views)).requires_grad_()
    volume = generator(seen)
    assert volume.shape == (2, 1, 16, 16, 16)
    assert volume.min() >= 0
    (volume * torch.rand_like(volume)).sum().backward()
    assert seen.grad is not None
    assert (seen.grad.abs().sum((0, 2, 3)) > 0).all()
    unused = {n for n, p in generator.named_parameters() if p.grad is None}
    assert all(".head." in n for n in unused)
    assert len(unused) == (0 if len(views) == 1 else 2 * len(views))


def test_a_sample_is_by_itself_in_evaluation_too() -> None:
    """Norms take each sample's own statistics, and none is kept."""
    generator = _small([0.0, 90.0], dropout=0.0)
    views = _views(2)
    with torch.no_grad():
        together, training = generator.eval()(views), generator.train()(views)
        alone = generator(views[1:])
    assert torch.equal(together, training)
    torch.testing.assert_close(together[1:], alone, rtol=1e-9, atol=1e-9)
    assert not list(generator.buffers())


def test_dropout_follows_from_the_sample_alone() -> None:
    generator = _small([0.0, 90.0])
    views, seeds = _views(2), torch.tensor([[5, 7], [5, 8]])
    with torch.no_grad():
        both, again = generator(views, seeds), generator(views, seeds)
        alone = generator(views[1:], seeds[1:])
        other = generator(views, seeds + 1)
        without = generator.eval()(views, seeds)
    assert torch.equal(both, again)
    torch.testing.assert_close(both[1:], alone, rtol=1e-9, atol=1e-9)
    assert not torch.equal(both, other)
    assert not torch.equal(both, without)


def test_half_of_the_bottom_is_dropped_and_the_rest_doubled() -> None:
    connection = _small([0.0]).branches[0].bottom
    connection.linear.bias.data.fill_(1.0)
    connection.linear.weight.data.zero_()
    features = torch.rand(4, connection.linear.in_features, 4, 4, dtype=torch.float64)
    dropped = connection(features, torch.arange(8).view(4, 2))
    assert dropped.unique().tolist() == [0.0, 2.0]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.1)
    assert not torch.equal(dropped[0], dropped[1])
    assert connection.eval()(features, None).unique().tolist() == [1.0]


def test_weights_begin_as_published_and_follow_from_the_seed() -> None:
    wide = x2ct_gan.Config(encoder_channels=16, growth=8, bottom_channels=32)
    networks = [
        build_mapper(_experiment(seed, wide), GEOMETRY, 320.0).state_dict() for seed in (0, 0, 1)
    ]  # fmt: skip
    one, again, other = networks
    assert all(torch.equal(one[n], again[n]) for n in one)
    weights = torch.cat([w.flatten() for n, w in one.items() if n.endswith("weight")])
    assert weights.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert all(not w.any() for n, w in one.items() if n.endswith("bias"))
    assert not torch.equal(
        weights, torch.cat([w.flatten() for n, w in other.items() if n.endswith("weight")])
    )


def _experiment(seed: int, config: x2ct_gan.Config) -> Experiment:
    mapper = {"name": "x2ct-gan", **config.model_dump()}
    return Experiment(name="test", seed=seed, data={"views": ["PA", 90], "size": 16}, mapper=mapper)


def test_the_mapper_hands_views_over_whole_and_takes_them_in_half_precision_too() -> None:
    mapper = build_mapper(_experiment(0, x2ct_gan.Config(**SMALL)), GEOMETRY, 320.0).eval()
    assert isinstance(mapper, Mapper)
    assert mapper.lift is None
    views = _views(2).float()
    with torch.no_grad():
        volume, rounded = mapper(views), mapper.to(torch.bfloat16)(views)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded.float() - volume).norm() / volume.norm() < 0.1


def test_pictures_are_resampled_without_aliasing_and_fill_the_cube() -> None:
    generator = _small([0.0])
    stripes = (torch.arange(32) % 2).float().expand(1, 1, 32, 32)
    inner = generator.pictures(stripes)[..., 2:-2]
    assert inner.shape == (1, 1, 16, 12)
    assert (inner - 0.5).abs().max() < 0.15  # each other pixel alone would give 0 or 1
    torch.testing.assert_close(generator.pictures(torch.ones(1, 1, 32, 32)), torch.ones(1, 1, 16, 16))


def test_wrong_views_and_keys_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected \(batch, 2, 32, 32\), got \(1, 1, 32, 32\)"):
        _small([0.0, 90.0])(torch.zeros(1, 1, 32, 32))
    with pytest.raises(UserError, match="did you mean 'growth'"):
        validate(x2ct_gan.Config, {"grwth": 3}, "mapper x2ct-gan")
    with pytest.raises(UserError, match="at least one view"):
        _small([])
