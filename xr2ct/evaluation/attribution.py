"""Which of its views a mapper listens to: the gradient of its output, after the paper's Fig. 8.

    s(x) = Σ g(x) over all voxels        a(x) = |∂s/∂x|

The paper shows "gradient magnitudes with respect to the input views" and says no more; ours is that of the
sum of the reconstruction, before it is clipped to the window. What raises some voxels as much as it lowers
others adds nothing: it tells how strongly the output's brightness depends on a place, not all it does.

Where views are lifted into volumes, x is the lifted volume, so that the magnitude has slices; a network that
takes the views themselves has magnitudes on their pixels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.evaluation.pairs import Stores, open_store
from xr2ct.evaluation.sweep import choose_device
from xr2ct.loading.loader import sequential
from xr2ct.models.mapper import Mapper
from xr2ct.run import Run
from xr2ct.weights import load_mapper

PATIENTS = 8
"""Looked at, unless told otherwise: the first test cases of the training cohort."""


@dataclass(frozen=True)
class Attribution:
    """|∂s/∂x| of one case."""

    case: str
    magnitude: np.ndarray
    """(view,): the mean over the lifted volume, or over the view's pixels without a lift."""
    by_slice: np.ndarray | None
    """(view, z): the mean over each axial slice of the lifted volume; None without a lift."""
    shown: np.ndarray
    """(view, slice, y, x) of the lifted volume at `shown_slices`, or (view, 1, row, col) of the views."""


def shown_slices(size: int) -> tuple[int, int, int]:
    """Axial slices a quarter, half and three quarters of the way from the feet."""
    return (size // 4, size // 2, 3 * size // 4)


def attribute(mapper: Mapper, views: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor | None]:
    """|∂s/∂views| (b, view, row, col), and |∂s/∂lifted| (b, view, z, y, x) where the mapper has a lift.

    Samples do not mix: s is summed over the batch, and each has its own gradient.
    """
    views = views.detach().requires_grad_()
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        # A lift that passes nothing on, as of noise alone, still has a volume to differentiate by.
        kept.append(output if output.requires_grad else output.requires_grad_())
        return kept[-1]

    hook = mapper.lift.register_forward_hook(keep) if mapper.lift is not None else None
    try:
        with torch.enable_grad():
            total = mapper(views, seeds).double().sum()
    finally:
        if hook is not None:
            hook.remove()
    of_views, *of_lifted = torch.autograd.grad(total, [views, *kept])
    return of_views.abs(), of_lifted[0].abs() if of_lifted else None


def attributions(run: Run, patients: int = PATIENTS) -> list[Attribution]:
    """Of a run's best checkpoint, one for each of the first test cases of its cohort, in the store's order.

    Empty where the cohort has no test case. Raises `UserError` where the store is not there, and for a mapper
    of sub-volumes or with a stage before it, whose views are not all that it sees.
    """
    experiment: Experiment = run.experiment()
    if experiment.data.window is not None or experiment.coarse is not None:
        raise UserError(
            f"{run.path}: attribution is of mappers that see whole views alone; "
            "this one has data.window or coarse"
        )
    device = choose_device(experiment, None)
    store = open_store(experiment, experiment.data.cohort, Stores())
    cases = store.split("test")[:patients]
    mapper, _ = load_mapper(run.best, experiment.evaluation.weights, device)
    mapper.requires_grad_(False)
    found = []
    for batch in sequential(store, cases, experiment.data, batch=1, device=device):
        of_views, of_lifted = attribute(mapper, batch.views, batch.seeds)
        found.append(_reduced(batch.cases[0], of_views[0], None if of_lifted is None else of_lifted[0]))
    return found


def _reduced(case: str, of_views: Tensor, of_lifted: Tensor | None) -> Attribution:
    """What is kept: whole gradients of eight views at 128³ are 67 MB a case."""
    if of_lifted is None:
        means = of_views.double().mean((1, 2))
        return Attribution(case, means.cpu().numpy(), None, of_views[:, None].float().cpu().numpy())
    by_slice = of_lifted.double().mean((2, 3))
    shown = of_lifted[:, list(shown_slices(of_lifted.shape[1]))]
    return Attribution(
        case, by_slice.mean(1).cpu().numpy(), by_slice.cpu().numpy(), shown.float().cpu().numpy()
    )


@dataclass(frozen=True)
class Variability:
    """How a view's part differs between patients, and between the slices of one. Coefficients of variation:
    standard deviation over mean, NaN for fewer than two."""

    share: float
    """Of the magnitudes of all views, a mean over patients; the shares of all views add up to 1."""
    share_patients: float
    """Of the share, between patients."""
    share_slices: float
    """Of the share, between axial slices of a patient, a mean over patients; NaN without a lift."""
    magnitude_patients: float
    """Of the magnitude itself: with a single view the share is always 1."""
    magnitude_slices: float


def variability(found: Sequence[Attribution]) -> list[Variability]:
    """One for each view."""
    magnitude = np.stack([a.magnitude for a in found])  # (patient, view)
    share = shares(magnitude)
    slices = [a.by_slice for a in found]
    by_slice = None if any(s is None for s in slices) else np.stack([s for s in slices if s is not None])
    none = np.full(magnitude.shape[1], np.nan)
    share_slices = magnitude_slices = none
    if by_slice is not None:  # (patient, view, z)
        magnitude_slices = _variation(by_slice, axis=2).mean(0)
        share_slices = _variation(shares(by_slice), axis=2).mean(0)
    columns = (
        share.mean(0),
        _variation(share, axis=0),
        share_slices,
        _variation(magnitude, axis=0),
        magnitude_slices,
    )
    return [Variability(*(float(column[view]) for column in columns)) for view in range(magnitude.shape[1])]


def shares(magnitude: np.ndarray) -> np.ndarray:
    """(…, view, …) with views along axis 1 → the same, adding up to 1 over them; NaN where all are 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(magnitude / magnitude.sum(1, keepdims=True))


def _variation(values: np.ndarray, axis: int) -> np.ndarray:
    if values.shape[axis] < 2:
        return np.full(np.delete(values.shape, axis), np.nan)
    with np.errstate(invalid="ignore"):
        return np.asarray(values.std(axis, ddof=1) / values.mean(axis))
