"""From line integrals to what a detector and its processing hand over, in the order in which it happens.

The beam behind the patient is exp(−p) of that before him (Beer-Lambert). Scatter is added: it arises where
radiation is attenuated, so it is p·exp(−p) spread by a Gaussian (Ohnesorge, Flohr, Klingenbeck-Regn, European
Radiology 9:563–569, 1999). A grid out of its place or focus keeps back more of the beam towards one side, and
leaves lines. The detector counts photons (Poisson), blurs, and is read with noise. The logarithm makes line
integrals of it again; a tone curve and a window, taken from the picture's own percentiles, make it the
picture that a hospital archives. Behind the collimator's blades it is 0, as a reader of radiographs fills
what it finds covered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from xr2ct.config import Detector, Range

BEHIND_PATIENT = 0.2
"""Line integral from which on a pixel counts as behind the patient: a centimetre of water."""
FAINTEST = 1e-9
"""Least share of the beam that is told from none, where no photons are counted."""
FEW = 100
"""Photons from which on their number is drawn from the normal distribution, in a tenth of the time."""
GRID_PERIOD_PIXELS = (2.0, 12.0)
"""Of the lines: a grid's own are finer than pixels, and what is seen is their beat with these."""


@dataclass(frozen=True)
class Response:
    """Of one exposure. With every default it hands line integrals on as they are."""

    scatter: float = 0.0
    """Scattered over primary radiation, in the mean of what lies behind the patient."""
    scatter_mm: float = 40.0
    grid: float = 0.0
    """Share of the beam kept back at the last column, where negative at the first; none in the middle of
    the other side."""
    along_rows: bool = False
    """The grid lies turned by 90°: read "row" for "column"."""
    grid_lines: float = 0.0
    period: float = GRID_PERIOD_PIXELS[0]
    """Of the lines, in pixels."""
    phase: float = 0.0
    """Of the lines, in periods."""
    exposure: float | None = None
    """Photons a pixel in the open beam; no noise where None."""
    electronic: float = 0.0
    """Standard deviation, in photons."""
    blur_mm: float = 0.0
    gamma: float = 1.0
    window: tuple[float, float] | None = None
    """Percent of the pixels clipped below and above."""
    blades: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Share of the picture covered at its first rows, last rows, first columns, last columns."""


def draw_common(told: Detector, noise: np.random.Generator) -> Response:
    """What a patient's exposures have in common."""
    # As many draws whatever is switched on: switching one off leaves the others as they were.
    exposure, electronic, blur, gamma, low, high = noise.random(6)
    return Response(
        scatter_mm=told.scatter_mm,
        exposure=_by_logarithm(told.exposure, exposure) if told.exposure else None,
        electronic=_within(told.electronic, electronic),
        blur_mm=_within(told.blur_mm, blur),
        gamma=_by_logarithm(told.gamma, gamma) if told.gamma else 1.0,
        window=(_within(told.window, low), _within(told.window, high)) if told.window else None,
    )


def draw_response(told: Detector, common: Response, noise: np.random.Generator) -> Response:
    """`common`, with what differs from one exposure to the next."""
    scatter, grid, side, along_rows, lines, period, phase, collimated, *blades = noise.random(12)
    covered = told.collimation is not None and collimated < told.collimation_probability
    top, bottom, left, right = (_within(told.collimation, b) if covered else 0.0 for b in blades)
    return replace(
        common,
        scatter=_within(told.scatter, scatter),
        grid=math.copysign(_within(told.grid, grid), side - 0.5),
        along_rows=bool(along_rows < 0.5),
        grid_lines=_within(told.grid_lines, lines),
        period=_within(GRID_PERIOD_PIXELS, period),
        phase=float(phase),
        blades=(top, bottom, left, right),
    )


def respond(
    line_integrals: np.ndarray, response: Response, pixel_mm: float, noise: np.random.Generator
) -> np.ndarray:
    """What is handed over of a view of line integrals (row, col), float32, at least 0, on their scale.

    Brighter than the open beam cannot be told from it. A gamma or a window keeps the picture's range and
    gives its absolute values up.
    """
    p = np.asarray(line_integrals, np.float32)
    beam = np.exp(-p)
    if response.scatter:
        beam = beam + _scattered(p, beam, response, pixel_mm)
    if response.grid or response.grid_lines:
        beam = beam * _through_grid(p.shape, response)
    beam = _counted(beam, response, pixel_mm, noise)
    faintest = 1 / response.exposure if response.exposure else FAINTEST
    return _presented(-np.log(beam.clip(faintest, 1)), response).astype(np.float32)


def _scattered(p: np.ndarray, primary: np.ndarray, response: Response, pixel_mm: float) -> np.ndarray:
    behind = p > BEHIND_PATIENT
    if not behind.any():
        return np.zeros_like(p)
    spread = _spread(p * primary, response.scatter_mm / pixel_mm).clip(min=0)
    return np.asarray(spread * (response.scatter * primary[behind].mean() / spread[behind].mean()))


def _through_grid(shape: tuple[int, ...], response: Response) -> np.ndarray:
    """Share of the beam that passes, to be multiplied with (row, col)."""
    pixels = np.arange(shape[0] if response.along_rows else shape[1], dtype=np.float32)
    place = pixels / max(len(pixels) - 1, 1)  # 0 … 1
    lost = abs(response.grid) * (place if response.grid > 0 else 1 - place)
    lines = 0.5 * response.grid_lines * (1 + np.cos(2 * np.pi * (pixels / response.period + response.phase)))
    passed = np.asarray((1 - lost) * (1 - lines), np.float32)
    return passed[:, None] if response.along_rows else passed[None]


def _counted(beam: np.ndarray, response: Response, pixel_mm: float, noise: np.random.Generator) -> np.ndarray:
    if response.exposure:
        photons = beam * np.float32(response.exposure)
        counted = photons + np.sqrt(photons) * noise.standard_normal(beam.shape, np.float32)
        few = photons < FEW
        counted[few] = noise.poisson(photons[few])
        beam = counted / np.float32(response.exposure)
    if response.blur_mm:
        beam = _spread(beam, response.blur_mm / pixel_mm)
    if response.exposure and response.electronic:
        read_out = noise.standard_normal(beam.shape, np.float32)
        beam = beam + read_out * np.float32(response.electronic / response.exposure)
    return beam


def _presented(p: np.ndarray, response: Response) -> np.ndarray:
    rows, columns = p.shape
    top, bottom, left, right = response.blades
    first, last = round(left * columns), columns - round(right * columns)
    opened = np.s_[round(top * rows) : rows - round(bottom * rows), first:last]
    seen = p[opened]
    if response.window or response.gamma != 1:
        clipped = response.window or (0.0, 0.0)
        low, high = np.percentile(seen, (clipped[0], 100 - clipped[1])).tolist()
        # A tone curve alone leaves the open beam at 0.
        low = low if response.window else 0.0
        width = max(high - low, FAINTEST)
        seen = ((seen - low) / width).clip(0, 1) ** response.gamma * width
    picture = np.zeros_like(p)
    picture[opened] = seen
    return picture


def _spread(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Convolved with a Gaussian of `sigma` pixels, mirrored beyond its edges: a product in cosines."""
    rows, columns = (np.exp(-0.5 * (sigma * np.pi * np.arange(n) / n) ** 2) for n in picture.shape)
    waves = fft.dctn(picture, norm="ortho") * np.outer(rows, columns).astype(np.float32)
    return np.asarray(fft.idctn(waves, norm="ortho"))


def _within(told: Range | tuple[float, float] | None, share: float) -> float:
    """So far from the least to the most; 0 where off."""
    return told[0] + (told[1] - told[0]) * float(share) if told else 0.0


def _by_logarithm(told: Range, share: float) -> float:
    return told[0] * float((told[1] / told[0]) ** share)
