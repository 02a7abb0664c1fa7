"""CCX-rayNet's class condition (Ratul et al. 2021): an X-ray's lungs and bones steer its encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LUNGS, BONES = 0.5, 1.0
"""Values of a segmentation; 0 is everything else."""

_SLOPE = 0.1
_BINS = 256
_AIR = 0.1


class ConditioningNet(nn.Module):
    """A segmentation (b, 1, size, size) → conditions (b, features, size/2, size/2), where dense layers begin.

    Conv 3² from 1 to `channels` with stride 2, three more, and one to `features`; LeakyReLU between them. Of
    the published chain 1 → 128 → … → 64 the length and kernels are ours: those with which the whole network
    has the published number of parameters.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, features, 3, padding=1))

    def forward(self, segmentation: Tensor) -> Tensor:
        conditions: Tensor = self.layers(segmentation)
        return conditions


class ClassTransform(nn.Module):
    """Features x → x·(1 + s) + b, twice; s and b from the condition by two nets of convolutions 1²."""

    def __init__(self, conditions: int, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = (_to_each_pixel(conditions, channels) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, shift = 1 + self.scale(condition), self.shift(condition)
        changed: Tensor = (x * gain + shift) * gain + shift
        return changed


@torch.no_grad()
def threshold_masks(views: Tensor) -> Tensor:
    """X-rays (b, view, row, col) as line integrals → their lungs and bones by threshold, the same shape.

    Of each picture alone, and the same for any brightness and contrast of it. Air is what lies in the lowest
    tenth of its range. What is left is parted by Otsu's threshold: the thinner part is `LUNGS`. The denser
    part is parted by Otsu's threshold again: what is above is `BONES`, the spine with what lies before it,
    which a threshold cannot tell apart; as the body's rim, thin as lungs, counts with them. It stands in for
    the publication's segmentations, never released.
    """
    pixels = views.to(torch.promote_types(views.dtype, torch.float32)).flatten(2)
    low, high = pixels.aminmax(dim=2, keepdim=True)
    height = ((pixels - low) / (high - low).clamp(min=torch.finfo(pixels.dtype).tiny) * _BINS).long()
    height = height.clamp(max=_BINS - 1)
    body = height >= _AIR * _BINS
    dense = body & (height > _otsu(height, body))
    bones = dense & (height > _otsu(height, dense))
    labels = torch.zeros_like(pixels).masked_fill(body & ~dense, LUNGS).masked_fill(bones, BONES)
    return labels.view_as(views)


def _otsu(height: Tensor, chosen: Tensor) -> Tensor:
    """(…, pixels) of whole numbers below _BINS → (…, 1), the last that belongs to the lower of two classes.

    Of the chosen pixels; where the variance between classes is largest (Otsu 1979). All sums are of whole
    numbers, so exact in any order.
    """
    counts = torch.zeros(*height.shape[:-1], _BINS, dtype=torch.long, device=height.device)
    counts.scatter_add_(-1, height, chosen.long())
    below = counts.cumsum(-1)
    first = (counts * torch.arange(_BINS, device=height.device)).cumsum(-1)
    above = below[..., -1:] - below
    difference = first.double() / below.clamp(min=1) - (first[..., -1:] - first).double() / above.clamp(min=1)
    return (below * above * difference.square()).argmax(-1, keepdim=True)


def _to_each_pixel(conditions: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(conditions, channels, 1), nn.LeakyReLU(_SLOPE), nn.Conv2d(channels, channels, 1)
    )
