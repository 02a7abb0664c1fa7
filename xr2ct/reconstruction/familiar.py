"""How far an X-ray lies from those that a mapper learnt from, as a number that stands beside theirs.

A picture is described by what it shows, 16×16 means in principal components of the training X-rays and what
they leave over, and by how its grey levels are spread: quantiles, and how steep it is at three scales. Each
of the three is a squared Mahalanobis distance over its own mean on training X-rays, and the distance is the
root of their mean: about 1 for one of them. Theirs come from descriptions that they had no part in (five
folds), so that they compare with a new patient's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import load_file

from xr2ct.errors import UserError
from xr2ct.exchange.model_file import read_model
from xr2ct.projection.geometry import VIEW_NAMES
from xr2ct.projection.views import scale_views

FILE = "xrays.safetensors"
"""In a run's folder, or beside a checkpoint's weights."""
EXTRA = "familiar"
"""In a file of `xr2ct export`."""
LEAST_CASES = 16
"""Fewer training cases say nothing of a distribution."""
FAR = 0.99
"""Share of the training X-rays that are nearer than one that is called far."""

_SIDE = 16
_COMPONENTS = 24
_FOLDS = 5
_QUANTILES = (0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98)
_SCALES = (1, 2, 4)
_IMPERCEPTIBLE = 0.005
"""Standard deviation of a grey level that is as good as none: a background of 0 varies not at all."""
_RIDGE = 0.05
"""Share of the mean variance that is added to each: what never varied in training is no proof of anything."""


@dataclass(frozen=True)
class Familiarity:
    """Of one view."""

    angle_deg: float
    distance: float
    share: float
    """Of the training X-rays, those that are nearer, from 0 to 1."""
    usual: tuple[float, float]
    """1st and 99th percentile of the training X-rays' own distances."""

    @property
    def far(self) -> bool:
        return self.share >= FAR

    def __str__(self) -> str:
        name = VIEW_NAMES.get(self.angle_deg, "view")
        low, high = self.usual
        return (
            f"{name} ({self.angle_deg:g}°): farther from the training X-rays than {100 * self.share:.1f} % "
            f"of them (distance {self.distance:.1f}; theirs {low:.1f}–{high:.1f})"
        )


@dataclass(frozen=True)
class Familiar:
    """What the training X-rays of each view look like."""

    angles_deg: np.ndarray
    """(view,) in the order of the mapper's channels."""
    maximum: np.ndarray
    """(view,) float64: the middle one of their largest line integrals."""
    landmarks: np.ndarray
    """(view, 9): mean quantiles of the middle of the picture, over its largest value."""
    mean: np.ndarray
    """(view, 256) of the small pictures."""
    components: np.ndarray
    """(view, k, 256) orthonormal."""
    variance: np.ndarray
    """(view, k)."""
    left_over: np.ndarray
    """(view,) mean square of what the components leave."""
    spread_mean: np.ndarray
    """(view, 12) of the grey levels' figures."""
    whitener: np.ndarray
    """(view, 12, 12): takes their covariance to the identity."""
    distances: np.ndarray
    """(view, case) ascending, of the training X-rays."""

    @classmethod
    def of(
        cls, angles_deg: Sequence[float], line_integrals: Iterable[np.ndarray], scale: Literal["max"] | float
    ) -> Familiar:
        """From the X-rays (view, row, col) of each training case; `scale` as `views.scale_views` has it.

        They are taken one by one. Raises `ValueError` for fewer than `LEAST_CASES`.
        """
        described = []
        for views in line_integrals:
            largest = views.max(axis=(1, 2)).astype(np.float64)
            described.append((*_describe(scale_views(views, scale)), _landmarks(views), largest))
        if len(described) < LEAST_CASES:
            raise ValueError(f"expected at least {LEAST_CASES} cases, got {len(described)}")
        shown, spread, landmarks, maxima = (np.stack(part) for part in zip(*described, strict=True))
        cases = len(shown)
        models = [_fit(shown[:, v], spread[:, v]) for v in range(len(angles_deg))]
        distances = np.empty((len(angles_deg), cases))
        for fold in range(_FOLDS):
            out = np.arange(cases) % _FOLDS == fold
            for v in range(len(angles_deg)):
                told = _fit(shown[~out, v], spread[~out, v])
                distances[v, out] = _distance(told, shown[out, v], spread[out, v])
        return cls(
            angles_deg=np.asarray(angles_deg, np.float64),
            maximum=np.median(maxima, axis=0),
            landmarks=landmarks.mean(axis=0),
            distances=np.sort(distances, axis=1),
            **{name: np.stack(part) for name, part in zip(_MODEL, zip(*models, strict=True), strict=True)},
        )

    def compare(self, views: np.ndarray) -> list[Familiarity]:
        """Of each of a patient's views (view, row, col), scaled as the mapper sees them."""
        shown, spread = _describe(views)
        found = []
        for v, angle in enumerate(self.angles_deg):
            (distance,) = _distance(self._model(v), shown[v : v + 1], spread[v : v + 1])
            theirs = self.distances[v]
            share = np.searchsorted(theirs, distance) / len(theirs)
            low, high = np.percentile(theirs, (1, 99))
            found.append(Familiarity(float(angle), float(distance), float(share), (float(low), float(high))))
        return found

    def standardised(self, place: int, view: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """A view (row, col) from 0 to 1 with the grey levels of the training X-rays at `place`.

        What a tone curve did is undone as far as it moved the quantiles of the picture's middle: these are
        laid onto the mean ones of training, by straight lines in between, 0 and 1 staying (Nyúl, Udupa,
        Zhang, IEEE Trans. Med. Imaging 19:143–150, 2000). As it is where too little of the middle is `seen`.
        """
        middle = _middle(view.shape)
        inside = view[middle][seen[middle]]
        if len(inside) < seen[middle].size / 2:
            return view
        own = np.quantile(inside, _QUANTILES).clip(1e-3, 1 - 1e-3)
        # Where the picture is flat quantiles coincide: each is kept a little above the one before.
        steps = np.concatenate([[0], np.maximum.accumulate(own) + 1e-6 * np.arange(len(own)), [1]])
        return np.interp(view, steps, np.concatenate([[0], self.landmarks[place], [1]])).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that it is, by name."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Familiar:
        """The inverse of `arrays`; `ValueError` where one is missing, does not fit, or is one too many."""
        names = {field.name for field in fields(cls)}
        if set(arrays) != names:
            raise ValueError(f"expected {', '.join(sorted(names))}, got {', '.join(sorted(arrays))}")
        views, figures = arrays["angles_deg"].size, len(_QUANTILES) + len(_SCALES)
        kept = arrays["variance"].shape[-1] if arrays["variance"].ndim else 0
        shapes: dict[str, tuple[int, ...]] = {
            "angles_deg": (views,),
            "maximum": (views,),
            "landmarks": (views, len(_QUANTILES)),
            "mean": (views, _SIDE**2),
            "components": (views, kept, _SIDE**2),
            "variance": (views, kept),
            "left_over": (views,),
            "spread_mean": (views, figures),
            "whitener": (views, figures, figures),
        }
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        theirs = arrays["distances"]
        if wrong or not views or theirs.ndim != 2 or theirs.shape[0] != views or not theirs.size:
            raise ValueError(f"{(wrong or ['distances'])[0]} is of another shape")
        return cls(**arrays)

    def _model(self, view: int) -> _Model:
        return tuple(getattr(self, name)[view] for name in _MODEL)


_MODEL = ("mean", "components", "variance", "left_over", "spread_mean", "whitener")
_Model = tuple[np.ndarray, ...]
"""These, of one view."""


def load_familiar(checkpoint: Path) -> Familiar | None:
    """Of the training X-rays of a checkpoint, from beside its weights, from its run or from the file that it
    is; None without them.

    Raises `UserError` where the file is damaged.
    """
    if checkpoint.is_file():
        model = read_model(checkpoint)
        held = model.extras.get(EXTRA)
        if held is None:
            return None
        try:
            found = Familiar.from_arrays(held.arrays)
            if tuple(found.angles_deg) != model.experiments[0].data.views:
                raise ValueError("of other views")
        except ValueError as error:
            raise UserError(f"{checkpoint}: {EXTRA}: damaged ({error})") from None
        return found
    for folder in (checkpoint, *checkpoint.resolve().parents[1:2]):
        file = folder / FILE
        if file.is_file():
            try:
                return Familiar.from_arrays(load_file(file))
            except (SafetensorError, ValueError, OSError) as error:
                raise UserError(f"{file}: damaged ({str(error).splitlines()[0]})") from None
    return None


def _describe(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (view, row, col): small pictures (view, 256) and figures of grey levels (view, 12), float64."""
    picture = torch.from_numpy(np.ascontiguousarray(views, np.float32)).double()
    shown = F.adaptive_avg_pool2d(picture, _SIDE).flatten(1)
    levels = torch.quantile(picture.flatten(1), picture.new_tensor(_QUANTILES), dim=1).T
    steep = []
    for scale in _SCALES:
        small = F.avg_pool2d(picture, scale)
        change = small.diff(dim=1).abs().mean((1, 2)) + small.diff(dim=2).abs().mean((1, 2))
        steep.append((change + 1e-6).log())
    return shown.numpy(), torch.cat([levels, torch.stack(steep, 1)], 1).numpy()


def _landmarks(views: np.ndarray) -> np.ndarray:
    """(view, 9) of (view, row, col)."""
    largest = views.max(axis=(1, 2), keepdims=True)
    relative = views / np.where(largest > 0, largest, 1)
    middle = _middle(views.shape[1:])
    return np.stack([np.quantile(view[middle], _QUANTILES) for view in relative])


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The inner half of a picture each way: lungs and mediastinum, before the volume in every geometry."""
    return tuple(slice(n // 4, n - n // 4) for n in shape)


def _fit(shown: np.ndarray, spread: np.ndarray) -> _Model:
    """The description of a view, from (case, 256) and (case, 12)."""
    cases = len(shown)
    mean, spread_mean = shown.mean(axis=0), spread.mean(axis=0)
    _, sizes, components = np.linalg.svd(shown - mean, full_matrices=False)
    kept = min(_COMPONENTS, cases // 4)
    variance = sizes**2 / (cases - 1)
    left_over = variance[kept:].sum() + _IMPERCEPTIBLE**2
    variance = variance[:kept] + _RIDGE * variance[:kept].mean() + _IMPERCEPTIBLE**2
    covariance = np.cov(spread, rowvar=False)
    scale = np.sqrt(np.diag(covariance) + _IMPERCEPTIBLE**2)
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    whitener = (vectors / np.sqrt(np.maximum(values, 0) + _RIDGE)).T / scale
    return mean, components[:kept], variance, left_over, spread_mean, whitener


def _distance(model: _Model, shown: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(case,) of (case, 256) and (case, 12)."""
    mean, components, variance, left_over, spread_mean, whitener = model
    off = shown - mean
    along = off @ components.T
    rest = (off**2).sum(axis=1) - (along**2).sum(axis=1)
    grey = (spread - spread_mean) @ whitener.T
    parts = ((along**2 / variance).mean(axis=1), rest / left_over, (grey**2).mean(axis=1))
    return np.sqrt(np.mean(parts, axis=0))
