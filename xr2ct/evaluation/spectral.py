"""Sharpness and truth apart: how much fine detail a volume has, and how much of it is where it belongs.

The spectrum is taken under a Hann window along each axis, so that a chest which the cube cuts off does not
leak into all frequencies, and in shells of equal frequency up to that of the grid (Nyquist):

| metric | definition |
|---|---|
| `sharpness` | power above half of Nyquist, over the truth's |
| `lsd_db` | log-spectral distance: root mean square over shells of the power's difference in dB |
| `fsc` | Fourier shell correlation with the truth (Harauz and van Heel, Optik 73, 1986), mean over shells |
| `resolution_mm` | period at which that falls below 0.5: how fine the detail is that can be believed |

The first two look at strengths alone: a sharpness of 1 is the truth's, less is blurred and more is noisy,
wherever the detail lies. The last two look at places alone. A blurred truth has a high `fsc` and no
sharpness; made-up detail has sharpness and a low `fsc`. Power below that of rounding to one HU counts as
that, so a volume without detail has numbers too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

METRICS = ("sharpness", "lsd_db", "fsc", "resolution_mm")
HALF = 0.5
"""The correlation that `resolution_mm` is told of."""


class Reference:
    """A true volume's spectrum, for any number of others."""

    def __init__(self, volume: Tensor, hu_width: float, spacing_mm: Sequence[float]) -> None:
        """volume: (z, y, x) float64, on the unit interval; hu_width: HU from 0 to 1; spacing_mm: z, y, x."""
        self._count = min(volume.shape) // 2
        self._finest_mm = 2 * max(spacing_mm)
        self._taper = [torch.hann_window(n, periodic=False, dtype=volume.dtype) for n in volume.shape]
        self._taper = [window.to(volume.device) for window in self._taper]
        self._shells, self._times = _shells(volume, spacing_mm, self._count)
        rounding = volume.numel() * (3 / 8) ** 3 / (12 * hu_width**2)
        self._floor = rounding * self._sums(torch.ones_like(self._times))
        self._spectrum = self._of(volume)
        self._power = self._sums(_power(self._spectrum)).maximum(self._floor)

    def score(self, volume: Tensor) -> dict[str, Tensor]:
        """Every metric of another volume (z, y, x) float64: scalars on its device."""
        spectrum, own, fine = self._of(volume), self._spectrum, self._count // 2
        power = self._sums(_power(spectrum)).maximum(self._floor)
        common = self._sums(spectrum.real * own.real + spectrum.imag * own.imag)
        correlation = common / (power * self._power).sqrt()
        return {
            "sharpness": power[fine:].sum() / self._power[fine:].sum(),
            "lsd_db": (10 * torch.log10(power / self._power)).square().mean().sqrt(),
            "fsc": correlation.mean(),
            "resolution_mm": self._period_at_half(correlation),
        }

    def _of(self, volume: Tensor) -> Tensor:
        """The half of the spectrum that tells the other."""
        z, y, x = self._taper
        return torch.fft.rfftn((volume - volume.mean()) * z[:, None, None] * y[:, None] * x)

    def _sums(self, values: Tensor) -> Tensor:
        """Over each shell but that about 0, of the whole spectrum: (count,)."""
        weights = (values * self._times).flatten()
        return torch.bincount(self._shells, weights, self._count + 2)[1 : self._count + 1]

    def _period_at_half(self, correlation: Tensor) -> Tensor:
        """Interpolated between shells; that of the grid where no shell falls below it."""
        whole = torch.cat([correlation.new_ones(1), correlation])  # at frequency 0 nothing is amiss
        below = correlation < HALF
        first = below.long().argmax()
        before, after = whole.index_select(0, first[None]), correlation.index_select(0, first[None])
        place = torch.where(below.any(), first + (before - HALF) / (before - after), self._count)
        return self._finest_mm * self._count / place[0]


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _shells(volume: Tensor, spacing_mm: Sequence[float], count: int) -> tuple[Tensor, Tensor]:
    """Of each place of the half spectrum its shell, 0 to count + 1 for all beyond, flat; and how often the
    whole has it, (z, y, x // 2 + 1)."""
    z, y, x = volume.shape
    options = {"dtype": volume.dtype, "device": volume.device}
    along = (
        torch.fft.fftfreq(z, spacing_mm[0], **options)[:, None, None],
        torch.fft.fftfreq(y, spacing_mm[1], **options)[:, None],
        torch.fft.rfftfreq(x, spacing_mm[2], **options),
    )
    frequency = (along[0].square() + along[1].square() + along[2].square()).sqrt()
    shells = (frequency * (2 * max(spacing_mm) * count)).round().long().clamp(max=count + 1)
    times = torch.full_like(frequency, 2.0)
    times[..., 0] = 1
    if x % 2 == 0:
        times[..., -1] = 1
    return shells.flatten(), times
