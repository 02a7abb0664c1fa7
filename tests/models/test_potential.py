"""The potential's shape, and its precision."""

from __future__ import annotations

import pytest
import torch

from xr2ct.errors import UserError
from xr2ct.models.potential import Config, Potential, Residual, SelfAttention

SMALL = Config(base_channels=2, max_channels=4)


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_volume_becomes_a_number_at_any_size(size: int) -> None:
    assert Potential(SMALL, size)(torch.rand(3, 1, size, size, size)).shape == (3, 1)


@pytest.mark.parametrize(("size", "stages"), [(16, 3), (64, 5), (128, 6), (512, 8)])
def test_attention_is_at_four_cubed(size: int, stages: int) -> None:
    with torch.device("meta"):
        potential = Potential(Config(), size)
    assert len(potential.stages) == stages
    assert potential.head.in_features == 512 * 4**3 if size >= 64 else 256 * 4**3


def test_a_size_without_a_stage_is_refused() -> None:
    with pytest.raises(UserError, match="size 4"):
        Potential(SMALL, 4)


def test_residual_block_is_the_recipes() -> None:
    torch.manual_seed(0)
    block, x = Residual(3, 5), torch.randn(1, 3, 4, 4, 4)
    leaky = torch.nn.LeakyReLU(0.2)
    expected = leaky(block.skip(x) + 0.1 * block.second(leaky(block.first(x))))
    torch.testing.assert_close(block(x), expected)


def test_residual_block_goes_back_as_the_recipes() -> None:
    torch.manual_seed(0)
    block, x = Residual(3, 5).double(), torch.randn(1, 3, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    leaky = torch.nn.LeakyReLU(0.2)
    inputs = (x, *block.parameters())
    expected = leaky(block.skip(x) + 0.1 * block.second(leaky(block.first(x))))
    slope = torch.randn_like(expected)
    ours = torch.autograd.grad(block(x), inputs, slope)
    for one, other in zip(ours, torch.autograd.grad(expected, inputs, slope), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_recomputing_changes_no_gradient_and_keeps_less() -> None:
    x = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    gradients, kept = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        potential = Potential(SMALL.model_copy(update={"use_checkpoint": recompute}), 16)
        weights = {p.untyped_storage().data_ptr() for p in potential.parameters()}
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            scores = potential(x)
        kept.append(sum(size for at, size in sizes.items() if at not in weights))
        gradients.append(torch.autograd.grad(scores.sum(), list(potential.parameters())))
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-6, atol=1e-8)
    assert kept[1] < 0.6 * kept[0]


def test_attention_weighs_voxels_by_likeness() -> None:
    """With identity projections: softmax(qkᵀ/√c)·v over voxels, added to what came in."""
    attention, x = SelfAttention(2), torch.randn(1, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(2)
    with torch.no_grad():
        attention.query_key_value.weight.copy_(torch.cat([eye, eye, eye]))
        attention.out.weight.copy_(eye)
        attention.query_key_value.bias.zero_()
        attention.out.bias.zero_()
    tokens = x[0].flatten(1).T
    mixed = torch.softmax(tokens @ tokens.T / 2**0.5, dim=1) @ tokens
    torch.testing.assert_close(attention(x)[0].flatten(1).T, tokens + mixed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_scores_in_fp32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    potential, x = Potential(SMALL, 16), torch.rand(2, 1, 16, 16, 16)
    exact = potential(x)
    rounded = potential.to(dtype)(x)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.01)
