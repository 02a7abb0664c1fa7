"""From how far draws lie apart to how far off the volume is: a calibration, fitted on the validation split.

    fit = Fit(cube_mm)
    fit.add(case, volume, doubt, truth, window)      each patient of the validation split
    fit.calibration(way="doubt-views", …)            afterwards .apply(volume, doubt, window, cube_mm)

Draws that agree can be wrong together. So the variance of the error is taken to be that of the draws, as far
as it tells of errors, and what else is known of where reconstructions err:

    σ² = (place · m)² + (deviation · s)² + (edge_mm · |∇V|)²        all in HU

s is the doubt of the draws, m the root mean square error of the validation patients at that place of the
cube, in cells of a sixteenth of its side, and |∇V| the gradient of the volume in HU a millimetre: an edge
that lies off by so many millimetres. The three factors are those of the greatest likelihood of the validation
errors as normal ones of variance σ²; for the fit each patient's m is of the others, so that nobody vouches
for himself. Errors have heavier tails than that: how many σ really held 68, 90 or 95 % of them is kept as
`intervals` (split conformal prediction: Vovk et al. 2005; Angelopoulos & Bates, arXiv:2107.07511).

RUN/doubt/step-000500/LABEL.json     LABEL as `config.Way.label`
RUN/doubt/mean-views.safetensors     what stands in a view's place for `doubt: views`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from xr2ct.config import Section, validate
from xr2ct.errors import UserError, WorkFailed, first_line
from xr2ct.evaluation.doubt import LEAST_HU, LEVELS, normal_factor
from xr2ct.exchange.model_file import Extra, read_model
from xr2ct.run import Run, step_name, write_atomically
from xr2ct.seeds import generator
from xr2ct.window import HuWindow

FORMAT = 1
EXTRA = "doubt"
"""In a file of `xr2ct export`: calibrations by way, and the mean view."""
CELLS = 16
"""Along each side of the cube, of the error by place."""
EVERYWHERE = 0.1
"""Patients' worth of error that is held to lie anywhere."""
VOXELS_A_PATIENT = 20_000
"""Drawn at random for the fit."""

_FOLDER = "doubt"
_STAND_IN = "mean-views.safetensors"
_VIEWS = "views"


class Calibration(Section):
    """What makes a standard deviation of the draws' doubt, and what that rests on."""

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    way: str
    """`config.Way.label`."""
    draws: tuple[str, ...]
    """Names of what the doubt is taken over."""
    weights: str
    """``mapper`` or ``mapper-ema``."""
    fitted_on: str
    """Digest of the validation split it was fitted on: `evaluation.pairs.Expected.digest`."""
    patients: int = Field(ge=1)
    voxels: int = Field(ge=1)
    place: float = Field(ge=0)
    deviation: float = Field(ge=0)
    edge_mm: float = Field(ge=0)
    place_hu: tuple[float, ...]
    """(z, y, x) in order: root mean square error by place, `CELLS` a side."""
    intervals: dict[int, float]
    """Percent → how many σ held so many of the validation errors."""
    coverage_before: dict[int, float]
    """Percent → share of the validation errors that lay within the normal interval of the draws' doubt as it
    was."""
    coverage_after: dict[int, float]
    """The same of σ."""

    @model_validator(mode="after")
    def _whole(self) -> Calibration:
        if len(self.place_hu) != CELLS**3:
            raise ValueError(f"place_hu: expected {CELLS**3} figures, got {len(self.place_hu)}")
        return self

    def applies_to(self, draws: Sequence[str], weights: str) -> bool:
        """Whether it was fitted on doubt that was made in the same way."""
        return (self.draws, self.weights) == (tuple(draws), weights)

    def apply(self, volume: Tensor, doubt: Tensor, window: HuWindow, cube_mm: float) -> Tensor:
        """σ, on the unit window, of a volume and the draws' doubt about it, all (z, y, x)."""
        cells = torch.tensor(self.place_hu, dtype=torch.float32, device=volume.device)
        place = F.interpolate(cells.view(1, 1, *(CELLS,) * 3), volume.shape, mode="trilinear")[0, 0]
        variance = (self.place * place).square_()
        variance += (self.deviation * window.width * doubt).square()
        variance += self.edge_mm**2 * _square_gradient(volume, window, cube_mm)
        return variance.clamp_(min=LEAST_HU**2).sqrt_() / window.width


@dataclass(frozen=True)
class _Sampled:
    """Voxels of one patient, in HU and HU a millimetre, float64."""

    error: np.ndarray
    doubt: np.ndarray
    gradient: np.ndarray
    places: Tensor
    """(1, 1, 1, voxel, 3) x, y, z on [−1, 1], as grid_sample counts."""


class Fit:
    """Collects what a calibration is fitted on, patient by patient."""

    def __init__(self, cube_mm: float) -> None:
        self._cube_mm = cube_mm
        self._sampled: list[_Sampled] = []
        self._squares: list[Tensor] = []

    def add(self, case: str, volume: Tensor, doubt: Tensor, truth: Tensor, window: HuWindow) -> None:
        """A patient of the validation split: reconstruction, the draws' doubt about it, and truth, all
        (z, y, x) on the unit window."""
        volume = volume.float().clamp(0, 1)
        error = (volume - truth) * window.width
        square = error.square()[None, None]
        self._squares.append(F.adaptive_avg_pool3d(square, CELLS)[0, 0].double().cpu())
        count = min(VOXELS_A_PATIENT, error.numel())
        chosen = generator(0, "calibration", case).choice(error.numel(), count, replace=False)
        at = torch.from_numpy(np.sort(chosen)).to(error.device)

        def taken(values: Tensor) -> np.ndarray:
            return values.flatten()[at].double().cpu().numpy()

        gradient = _square_gradient(volume, window, self._cube_mm).sqrt()
        self._sampled.append(
            _Sampled(
                taken(error.abs()), taken(doubt * window.width), taken(gradient), _places(at, error.shape)
            )
        )

    def calibration(self, way: str, draws: Sequence[str], weights: str, fitted_on: str) -> Calibration:
        """What fits those added; `WorkFailed` where there is nobody."""
        if not self._sampled:
            raise WorkFailed(f"{way}: nobody to calibrate doubt on")
        squares = torch.stack(self._squares)
        error = np.concatenate([s.error for s in self._sampled])
        doubt = np.concatenate([s.doubt for s in self._sampled])
        gradient = np.concatenate([s.gradient for s in self._sampled])
        place = np.concatenate(
            [_sample(_by_place(_without(squares, i)), s.places) for i, s in enumerate(self._sampled)]
        )
        factors = _most_likely(error, np.stack([place, doubt, gradient]))
        sd = np.sqrt((factors**2) @ np.stack([place, doubt, gradient]) ** 2)
        ratio = error / np.maximum(sd, LEAST_HU)
        return Calibration(
            way=way,
            draws=tuple(draws),
            weights=weights,
            fitted_on=fitted_on,
            patients=len(self._sampled),
            voxels=len(error),
            place=_rounded(factors[0]),
            deviation=_rounded(factors[1]),
            edge_mm=_rounded(factors[2]),
            place_hu=tuple(_rounded(v) for v in _by_place(squares).flatten().tolist()),
            intervals={level: _rounded(float(np.quantile(ratio, level / 100))) for level in LEVELS},
            coverage_before=_covered(error / np.maximum(doubt, LEAST_HU)),
            coverage_after=_covered(ratio),
        )


def calibration_file(run: Run, step: int, way: str) -> Path:
    """Of the way with that label."""
    return run.path / _FOLDER / step_name(step) / f"{way}.json"


def write_calibration(run: Run, step: int, calibration: Calibration) -> Path:
    """Beside the run's checkpoint of that step; whoever reads it sees all of it or none."""
    path = calibration_file(run, step, calibration.way)
    write_atomically(path, json.dumps(calibration.model_dump(mode="json"), indent=1) + "\n")
    return path


def read_calibration(checkpoint: Path, way: str) -> Calibration | None:
    """Of a checkpoint, from its run, from a folder `doubt` in it or from the file that it is; None where
    there is none.

    `UserError` for a file that is no calibration.
    """
    if checkpoint.is_file():
        held = read_model(checkpoint).extras.get(EXTRA)
        told = None if held is None else held.values.get(way)
        return None if told is None else validate(Calibration, told, f"{checkpoint}: {EXTRA}: {way}")
    place = checkpoint.resolve()
    files = [place / _FOLDER / f"{way}.json"]
    if len(place.parents) > 1:
        files.append(place.parents[1] / _FOLDER / place.name / f"{way}.json")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read ({first_line(error)})") from None
        try:
            values = json.loads(text)
        except ValueError:
            raise UserError(f"{file}: not a calibration; `xr2ct evaluate` writes it again") from None
        return validate(Calibration, values, str(file))
    return None


def write_stand_in(run: Run, views: Tensor, angles_deg: Sequence[float]) -> Path:
    """Keep the mean view of the cases learnt from, (view, row, col) as the mapper sees them."""
    path = run.path / _FOLDER / _STAND_IN
    about = {"angles_deg": " ".join(f"{angle:g}" for angle in angles_deg)}
    write_atomically(path, save({_VIEWS: views.float().cpu().contiguous()}, metadata=about))
    return path


def read_stand_in(checkpoint: Path) -> Tensor:
    """(view, row, col) float32, as `write_stand_in` kept it in the checkpoint's run, or in a folder `doubt`
    in the checkpoint, or in the file that it is; `UserError` where it is not there."""
    if checkpoint.is_file():
        model = read_model(checkpoint)
        held = model.extras.get(EXTRA)
        if held is None or _VIEWS not in held.arrays:
            raise UserError(
                f"{checkpoint}: doubt: views: it came without the mean training view; export it again after "
                "`xr2ct evaluate` with a way of doubt: views"
            )
        mean = torch.from_numpy(held.arrays[_VIEWS]).float()
        if mean.ndim != 3 or len(mean) != len(model.experiments[0].data.views):
            raise UserError(f"{checkpoint}: doubt: views: its mean training view is of another shape")
        return mean
    place = checkpoint.resolve()
    for folder in (place, *place.parents[1:2]):
        file = folder / _FOLDER / _STAND_IN
        if file.is_file():
            try:
                with safe_open(file, framework="pt") as stored:
                    views: Tensor = stored.get_tensor(_VIEWS)
            except (SafetensorError, OSError) as error:
                raise UserError(f"{file}: cannot be read ({first_line(error)})") from None
            return views
    raise UserError(
        f"{checkpoint}: doubt: views: its run lacks {_FOLDER}/{_STAND_IN}, the mean training view; "
        "`xr2ct evaluate` with a way of doubt: views writes it"
    )


def calibrations(checkpoint: Path) -> dict[str, Calibration]:
    """Of a checkpoint's folder, by way, as `read_calibration` finds them."""
    place = checkpoint.resolve()
    folders = (place / _FOLDER, place.parents[1] / _FOLDER / place.name)
    ways = sorted({file.stem for folder in folders for file in folder.glob("*.json")})
    return {way: found for way in ways if (found := read_calibration(checkpoint, way)) is not None}


def as_extra(checkpoint: Path) -> Extra | None:
    """What a file to hand on takes along of a checkpoint's folder: all but ensembles, of which it is one
    member; None where there is nothing."""
    alone = {way: kept for way, kept in calibrations(checkpoint).items() if "ensemble" not in way}
    try:
        arrays = {_VIEWS: read_stand_in(checkpoint).numpy()}
    except UserError:
        arrays = {}
    values = {way: kept.model_dump(mode="json") for way, kept in alone.items()}
    return Extra(arrays, values) if arrays or values else None


def header(doubt: str, draws: Sequence[str], calibration: Calibration | None) -> dict[str, str]:
    """What an image of doubt says of itself."""
    told = {"xr2ct_doubt": doubt, "xr2ct_doubt_over": ", ".join(draws), "xr2ct_doubt_unit": "HU"}
    if calibration is None:
        return told | {"xr2ct_doubt_calibrated": "no"}
    intervals = ", ".join(f"{level} %: {factor:.3g}" for level, factor in calibration.intervals.items())
    return told | {
        "xr2ct_doubt_calibrated": f"on {calibration.patients} patients of the validation split",
        "xr2ct_doubt_intervals_sd": intervals,
    }


def _square_gradient(volume: Tensor, window: HuWindow, cube_mm: float) -> Tensor:
    """|∇V|² in (HU/mm)² by central differences, of the volume clipped to the window."""
    spacing_mm = cube_mm / len(volume)
    hu = window.to_hu(volume.float())
    total = torch.zeros_like(hu)
    for axis in range(3):
        (along,) = torch.gradient(hu, spacing=spacing_mm, dim=axis)
        total += along.square()
    return total


def _by_place(squares: Tensor) -> Tensor:
    """(CELLS, CELLS, CELLS) root mean square over patients (n, …) and part of one who errs alike everywhere:
    of few patients no cell says that nothing is ever wrong there."""
    total = squares.sum(dim=0) + EVERYWHERE * squares.mean()
    return (total / (len(squares) + EVERYWHERE)).sqrt()


def _without(squares: Tensor, patient: int) -> Tensor:
    """The others; of one patient alone, him with the same everywhere."""
    if len(squares) == 1:
        return squares.mean().expand_as(squares)
    return torch.cat([squares[:patient], squares[patient + 1 :]])


def _places(at: Tensor, shape: torch.Size) -> Tensor:
    z, y, x = torch.unravel_index(at.cpu(), shape)
    half = [(2 * axis.double() + 1) / side - 1 for axis, side in zip((x, y, z), shape[::-1], strict=True)]
    return torch.stack(half, dim=-1)[None, None, None]


def _sample(cells: Tensor, places: Tensor) -> np.ndarray:
    """As `F.interpolate` has them there."""
    found = F.grid_sample(cells[None, None], places, padding_mode="border", align_corners=False)
    return found.flatten().numpy()


def _most_likely(error: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Factors (part,) ≥ 0 with the least Σ log σ² + e²/σ²; σ² = Σ (factor · part)², parts (part, voxel)."""
    from scipy.optimize import minimize  # takes a second, and a reconstruction fits nothing

    # Shares of the mean square error, so that the search is about numbers near 1.
    typical = float(np.mean(error**2)) + LEAST_HU**2
    scale = np.maximum(np.mean(parts**2, axis=1), 1e-12)
    shares, square_error = parts**2 / scale[:, None], error**2 / typical

    def cost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        variance = theta @ shares + LEAST_HU**2 / typical
        rest = square_error / variance
        return float(np.mean(np.log(variance) + rest)), shares @ ((1 - rest) / variance) / len(error)

    start = np.full(len(parts), 1 / len(parts))
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts))
    return np.asarray(np.sqrt(found.x * typical / scale))


def _covered(ratio: np.ndarray) -> dict[int, float]:
    return {level: _rounded(float(np.mean(ratio <= normal_factor(level)))) for level in LEVELS}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
