"""The scanner: where its grid lies, its couch, the kernel, and noise that follows the dose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xr2ct.cohorts.phantom.chest import draw_chest
from xr2ct.cohorts.phantom.grid import Array, Grid
from xr2ct.cohorts.phantom.patient import Patient, draw_patient
from xr2ct.cohorts.phantom.shifts import Kernel, Shift, shift_of
from xr2ct.cohorts.phantom.torso import Profiles
from xr2ct.cohorts.volume import AIR_HU, NativeVolume
from xr2ct.seeds import derive_seed, generator

MANUFACTURER = "xr2ct synthetic"
HIGHEST_HU = 3071
WATER_PER_MM = 0.02


@dataclass(frozen=True)
class Scan:
    """One patient as one scanner saw him."""

    hu: Array
    """(z, y, x) int16."""
    grid: Grid
    origin_mm: tuple[float, float, float]
    """LPS (x, y, z) of the first voxel's middle, on the scanner's own axes."""
    seen: Array
    """(y, x) bool: the circle of reconstruction."""
    thickness_mm: float
    kernel: Kernel
    patient: Patient
    shift: Shift


def scan(seed: int, cohort: str) -> Scan:
    """Draw a patient of a cohort, and scan him; raises `UserError` for an unknown cohort."""
    shift = shift_of(cohort)
    seed = derive_seed(seed, "phantom", cohort)
    patient = draw_patient(seed, shift)
    rng = generator(seed, "scanner")
    grid = _lay_grid(patient, shift, rng)
    truth, body = draw_chest(grid, patient, seed)
    _lay_couch(truth, body, grid, shift)
    kernel = shift.kernels[rng.integers(len(shift.kernels))]
    hu = _reconstruct(truth, grid, shift, kernel, rng)
    z, y, x = grid.axes
    seen = np.ones(hu.shape[1:], bool)
    if shift.encoding.padding is not None:
        seen = y[:, None] ** 2 + x[None] ** 2 <= (0.5 * grid.shape[1] * grid.spacing_mm[1]) ** 2
    hu[:, ~seen] = AIR_HU
    table_y, table_z = np.round(rng.uniform((-30, -900), (10, 100)), 1)
    origin = (float(x[0]), float(y[0] + table_y), float(z[0] + table_z))
    return Scan(hu, grid, origin, seen, grid.spacing_mm[0] * shift.thickness, kernel, patient, shift)


def synthetic_chest(seed: int, cohort: str) -> NativeVolume:
    """A chest CT of a cohort as it would be read from its files; the same for the same seed and cohort."""
    return as_volume(scan(seed, cohort))


def as_volume(taken: Scan) -> NativeVolume:
    """The scan without what only its files hold."""
    attributes = {
        "thickness_mm": taken.thickness_mm,
        "kernel": taken.kernel.name,
        "contrast": taken.patient.contrast,
        "kvp": float(taken.shift.kvp),
        "manufacturer": MANUFACTURER,
        "model": taken.shift.encoding.manufacturer_model,
    }
    return NativeVolume(taken.hu, taken.grid.spacing_mm, attributes)


def _lay_grid(p: Patient, shift: Shift, rng: np.random.Generator) -> Grid:
    """From below the diaphragm's dome to above the apex, as wide as the protocol says."""
    closely = 2 * (p.width + p.muscle + p.fat) * rng.uniform(1.06, 1.18)
    fov = rng.uniform(*shift.fov_mm) if shift.fov_mm else float(np.clip(closely, 300, 440))
    pixel = round(fov / shift.matrix, 4)
    step = float(shift.slice_mm[rng.integers(len(shift.slice_mm))])
    top = 104 * p.length + rng.uniform(*shift.above_mm)
    bottom = max(p.dome) - rng.uniform(*shift.below_mm)
    slices = round((top - bottom) / step)
    profiles = Profiles.of(p)
    middle = 0.5 * float(profiles.at(-60.0, profiles.body_front + profiles.body_back))
    return Grid(
        shape=(slices, shift.matrix, shift.matrix),
        spacing_mm=(step, pixel, pixel),
        rotation=p.rotation,
        centre=(p.offset[0], middle + p.offset[1] + 8, 0.5 * (top + bottom)),
    )


def _lay_couch(truth: Array, body: Array, grid: Grid, shift: Shift) -> None:
    """Under the patient's back, never in him: a thin shell filled with foam, flat for radiotherapy."""
    y, x = grid.axes[1][:, None], grid.axes[2][None]
    beneath = (body > 0.5).any(axis=(0, 2))
    back = float(y[np.flatnonzero(beneath).max(), 0])
    curved = shift.couch == "curved"
    upper = back + (4 - x**2 / 900 if curved else 4.0)
    lower = upper + (28 if curved else 55)
    half = 215.0 if curved else 265.0
    edge = np.float32(grid.spacing_mm[1])
    outer = np.maximum(np.maximum(upper - y, y - lower), np.abs(x) - half)
    shell = np.clip(0.5 - outer / edge, 0, 1)
    foam = np.clip(0.5 - (outer + (2.0 if curved else 3.0)) / edge, 0, 1)
    couch = -1000 + shell * (1000 + (150 if curved else -150))
    couch += foam * (-940 - couch)
    free = 1 - body
    truth += free * (np.maximum(truth, couch.astype(np.float32)) - truth)


def _reconstruct(truth: Array, grid: Grid, shift: Shift, kernel: Kernel, rng: np.random.Generator) -> Array:
    """Quantum noise where few photons come through, then the kernel over picture and noise alike."""
    level = rng.uniform(*shift.noise_hu)
    white = rng.standard_normal(truth.shape, dtype=np.float32)
    mu = np.float32(WATER_PER_MM) * np.maximum(1 + truth / 1000, 0)
    across, through = mu.sum(2) * grid.spacing_mm[2], mu.sum(1) * grid.spacing_mm[1]
    # half of it from the rays along x and half from those along y; 3.5 is an average chest's middle
    spread = level * np.exp(0.15 * (across[:, :, None] + through[:, None, :]) - 0.3 * 3.5)
    noise = white * (spread / np.float32(_gain(kernel)))
    picture = _apply(kernel, truth + noise)
    starved = shift.streaks * level * np.exp(0.3 * (across - 6.0))
    long = ndimage.uniform_filter1d(white, 31, axis=2) * np.float32(31**0.5)
    picture += long * starved[:, :, None].astype(np.float32)
    if shift.thickness > 1:  # overlapping slices share what they see
        share = (shift.thickness - 1) / 2 / shift.thickness
        picture = ndimage.correlate1d(picture, [share, 1 - 2 * share, share], axis=0, mode="nearest")
    return np.clip(np.rint(picture), AIR_HU, HIGHEST_HU).astype(np.int16)


def _apply(kernel: Kernel, picture: Array) -> Array:
    """In the plane of each slice."""
    smooth = _blur(picture, kernel.blur_pixels)
    if kernel.sharpening:
        smooth += kernel.sharpening * (smooth - _blur(smooth, 1.0))
    return smooth


def _blur(picture: Array, sigma: float) -> Array:
    for axis in (1, 2):
        picture = ndimage.gaussian_filter1d(picture, sigma, axis=axis, mode="nearest", truncate=3.0)
    return picture


def _gain(kernel: Kernel) -> float:
    """Standard deviation of white noise of unit variance after the kernel."""
    point = np.zeros((1, 31, 31), np.float32)
    point[0, 15, 15] = 1
    return float(np.sqrt((_apply(kernel, point) ** 2).sum()))
