"""Swin UNETR against MONAI's with the same weights: results, gradients, what is kept, and one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.nets import SwinUNETR as Monai
from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.models import swin_unetr
from xr2ct.models.mapper import build_mapper
from xr2ct.models.swin import SwinUNETR, attention, chunks
from xr2ct.models.swin.repeated import Views
from xr2ct.models.swin.residual import Decoder, Out, RepeatedBlock, ResidualBlock
from xr2ct.models.swin.transformer import PatchEmbed, Stage
from xr2ct.projection.geometry import Geometry

TINY: dict[str, Any] = {"feature_size": 12, "depths": (2, 1, 1, 1), "num_heads": (3, 6, 12, 24)}


@pytest.fixture(params=["in pieces", "whole"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a CPU runs it, and as a GPU or a compiler does."""
    if request.param == "whole":
        monkeypatch.setattr(chunks, "in_pieces", lambda x: False)
        monkeypatch.setattr(attention, "in_pieces", lambda x: False)
    else:
        monkeypatch.setattr(chunks, "CACHE_BYTES", 2**12)  # pieces of small volumes too, of windows as well
        monkeypatch.setattr(attention, "CACHE_BYTES", 2**18)
    yield


def agree(ours: nn.Module, theirs: nn.Module, run: Callable[[nn.Module], Tensor], tolerance: float) -> None:
    """The result, and the gradient of each weight, relative to its norm or the largest one's rounding."""
    theirs.load_state_dict(ours.state_dict())
    made, expected = run(ours), run(theirs)
    assert (made - expected).norm() <= tolerance * expected.norm()
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5)).to(expected)
    made.backward(slope)
    expected.backward(slope)
    largest = max(p.grad.norm() for p in theirs.parameters())
    for (name, our), (_, their) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        scale = torch.maximum(their.grad.norm(), 1e-3 * largest)
        assert (our.grad - their.grad).norm() <= tolerance * scale, name


def views(b: int, *lengths: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A frontal view repeated along y, a lateral one along x, and a frontal one; (b, 3, *lengths)."""
    z, y, x = lengths
    generator = torch.Generator().manual_seed(2)
    frontal, other = torch.rand(2, b, z, 1, x, generator=generator, dtype=torch.float64).to(dtype)
    lateral = torch.rand(b, z, y, 1, generator=generator, dtype=torch.float64).to(dtype)
    return torch.stack([v.expand(b, *lengths) for v in (frontal, lateral, other)], 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("dims", "window"),
    [((8, 8, 8), 4), ((10, 10, 10), 4), ((6, 6, 6), 7), ((4, 10, 6), 4)],
    ids=["fits", "padded", "one window", "sides differ"],
)
def test_a_stage_is_monais(dims: tuple[int, int, int], window: int) -> None:
    torch.manual_seed(0)
    ours = Stage(dims, 12, 2, 3, window).double()
    theirs = BasicLayer(12, 2, 3, (window,) * 3, [0.0, 0.0], qkv_bias=True, downsample=PatchMerging).double()
    x = torch.randn(2, *dims, 12, dtype=torch.float64)

    def run(stage: nn.Module) -> Tensor:
        if stage is ours:
            return stage(x, recompute=False)
        return stage(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)

    agree(ours, theirs, run, 1e-10)


def test_a_stage_takes_another_size_than_it_was_built_for() -> None:
    torch.manual_seed(0)
    built_for_it = Stage((10, 10, 10), 12, 2, 3, 4)
    other = Stage((8, 8, 8), 12, 2, 3, 4)
    other.load_state_dict(built_for_it.state_dict())
    x = torch.randn(1, 10, 10, 10, 12)
    torch.testing.assert_close(other(x, recompute=False), built_for_it(x, recompute=False), rtol=0, atol=0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("channels", [(6, 6), (3, 6)], ids=["same width", "wider"])
def test_a_residual_block_is_monais(channels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = ResidualBlock(*channels).double()
    theirs = UnetResBlock(3, *channels, kernel_size=3, stride=1, norm_name="instance").double()
    x = (100 + torch.randn(2, channels[0], 6, 5, 4)).double()
    agree(ours, theirs, lambda block: block(x), 1e-10)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("chosen", [[0, 1, 2], [0, 2], [1]], ids=["both ways", "frontal", "lateral"])
def test_pictures_convolved_are_their_repeats_convolved(chosen: list[int]) -> None:
    """The first block and the tokens."""
    torch.manual_seed(0)
    x = views(2, 8, 10, 6, dtype=torch.float64)[:, chosen]
    axes = tuple((-2, -1, -2)[i] for i in chosen)
    ours = RepeatedBlock(len(axes), 6).double()
    theirs = UnetResBlock(3, len(axes), 6, kernel_size=3, stride=1, norm_name="instance").double()
    as_views = Views(x, axes)
    agree(ours, theirs, lambda b: b(x, as_views) if b is ours else b(x), 1e-10)
    embed, plain = PatchEmbed(len(axes), 6).double(), PatchEmbed(len(axes), 6).double()
    agree(embed, plain, lambda e: e(x, as_views if e is embed else None), 1e-10)


@pytest.fixture(scope="module")
def both() -> tuple[SwinUNETR, Monai]:
    """Drawn from one seed."""
    torch.manual_seed(0)
    ours = SwinUNETR(64, 3, 1, window_size=7, **TINY)
    torch.manual_seed(0)
    return ours, Monai(3, 1, window_size=7, **TINY)


def test_weights_are_monais_by_name_shape_and_draw(both: tuple[SwinUNETR, Monai]) -> None:
    ours, theirs = (network.state_dict() for network in both)
    assert list(ours) == list(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


SHAPE = (64, 32, 32)
"""Small, and each stage but the last has windows that are padded and shifted."""


@pytest.mark.parametrize(
    ("training", "dtype", "tolerance"), [(True, torch.float64, 1e-10), (False, torch.float32, 1e-4)]
)
def test_the_whole_network_is_monais(
    both: tuple[SwinUNETR, Monai], training: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """On pictures in fp64; not so in fp32, whose roundings put some voxels beyond LeakyReLU's bend."""
    ours, theirs = (copy.deepcopy(network).train(training).to(dtype) for network in both)
    ours.repeated = (-2, -1, -2) if training else ()
    x = views(1, *SHAPE, dtype=dtype)
    agree(ours, theirs, lambda network: network(x), tolerance)


def test_recomputing_changes_no_gradient_and_keeps_less(both: tuple[SwinUNETR, Monai]) -> None:
    network = copy.deepcopy(both[0])
    x = views(1, *SHAPE)
    gradients, kept = [], []
    for network.recompute in (False, True):
        network.zero_grad()
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            volume = network(x)
        kept.append(sum(sizes.values()) - sum(p.nbytes for p in network.parameters()))
        volume.square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-7)
    assert kept[1] < 0.6 * kept[0]


@pytest.mark.slow
def test_the_whole_network_is_one_graph(both: tuple[SwinUNETR, Monai]) -> None:
    """With `fullgraph` a graph that breaks raises."""
    network = copy.deepcopy(both[0])
    network.repeated = (-2, -1, -2)
    x = views(1, 64, 64, 64)
    compiled = torch.compile(SwinUNETR.plain, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(network, x), network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["stage", "first block", "last block"])
def test_the_way_back_is_one_graph(name: str) -> None:
    torch.manual_seed(0)
    x = views(1, 8, 6, 6)
    tokens = torch.randn(1, 6, 4, 4, 12)
    decoder, out = Decoder(4, 4), Out(4, 1)
    small, skip = torch.randn(1, 4, 3, 3, 3), torch.randn(1, 4, 6, 6, 6)
    module, run = {
        "stage": (stage := Stage((6, 4, 4), 12, 2, 3, 4), lambda: stage(tokens, recompute=False)),
        "first block": (first := RepeatedBlock(3, 4), lambda: first(x, Views(x, (-2, -1, -2)))),
        "last block": (
            nn.ModuleList([decoder, out]),
            lambda: out(decoder.conv_block.unsummed(decoder.joined(small, skip))),
        ),
    }[name]
    gradients = []
    for call in (run, torch.compile(run, fullgraph=True, dynamic=False, backend="aot_eager")):
        module.zero_grad()
        call().square().mean().backward()
        gradients.append([p.grad for p in module.parameters()])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-5)


def test_it_is_compiled_where_told(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(
        "xr2ct.models.swin.network._compiled_pass", lambda: lambda network, x: called.append(network)
    )
    x = torch.zeros(1, 3, 64, 64, 64)
    for choice in ("off", "auto", "on"):
        network = swin_unetr.build(swin_unetr.Config(**TINY, compile=choice), in_channels=3, size=64)
        monkeypatch.setattr(network, "plain", lambda x: None)
        network(x)
        assert len(called) == (choice == "on")  # `auto` is not on a CPU
    network(x[..., :32])
    assert len(called) == 1  # nor is anything of another size, whose windows are laid out as it goes


def test_a_mapper_of_repeated_views_convolves_pictures_unless_a_voxels_gradient_is_asked_for() -> None:
    experiment = Experiment(
        name="test", mapper={"name": "swin-unetr", **TINY}, data={"views": ["AP", 90, 45]}
    )
    mapper = build_mapper(experiment, Geometry("small", 541.0, 949.0, 500.0, pixels=32), 320.0)
    assert mapper.backbone.repeated == (-2, -1, -2)
    seen: list[Any] = []
    mapper.backbone.encoder1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    with torch.no_grad():
        by_pictures = mapper(torch.ones(1, 3, 32, 32))
        mapper.backbone.repeated = ()
        plain = mapper(torch.ones(1, 3, 32, 32))
        mapper.backbone.repeated = (-2, -1, -2)
    mapper(torch.ones(1, 3, 32, 32, requires_grad=True))
    assert [isinstance(given, Views) for given in seen] == [True, False, False]
    torch.testing.assert_close(by_pictures, plain, rtol=1e-3, atol=1e-3)
