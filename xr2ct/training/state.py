"""Everything a run is after an outer step, to and from a checkpoint's folder.

mapper.safetensors, mapper-ema.safetensors, <fixed network>.safetensors and config.yaml are for whoever
uses the result. engines/ holds what only resuming needs: a folder for each DeepSpeed engine, state.json
with the place in the data, and a random-NNNNN.pt for each rank.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as in_bytes
from torch import Tensor

from xr2ct.config import Experiment, dump
from xr2ct.errors import WorkFailed
from xr2ct.methods.base import Method
from xr2ct.run import Run, step_name
from xr2ct.seeds import derive_seed
from xr2ct.training import checkpoints
from xr2ct.training.agreement import from_rank_0, lost_another, wait_for_all
from xr2ct.training.distributed import Ranks
from xr2ct.training.ema import MovingAverage
from xr2ct.training.engines import DeepSpeedNetwork
from xr2ct.training.fence import Fence
from xr2ct.training.watchdog import alive

log = logging.getLogger(__name__)


_NOT_WRITTEN = (OSError, RuntimeError, SafetensorError)
"""How a full disk or a folder gone shows itself; the second is torch's."""


@dataclass
class TrainingState:
    """What `save` writes and `restore` brings back."""

    experiment: Experiment
    method: Method
    engines: dict[str, DeepSpeedNetwork]
    ranks: Ranks
    fence: Fence
    average: MovingAverage | None
    """Of the mapper; on rank 0 alone."""
    step: int = 0
    """Outer steps done."""
    saved: int = -1
    """The step that was saved or restored last."""
    batches_drawn: int = 0
    """Global batches, calibration's included: the place in the data for any number of ranks."""

    def consolidated_weights(self) -> dict[str, dict[str, Tensor]]:
        """Every trained network's state dictionary, whole and in fp32; collective."""
        return {name: engine.consolidated_weights() for name, engine in self.engines.items()}

    def update_average(self) -> None:
        """Move the average towards the mapper's weights; collective."""
        weights = self.engines["mapper"].consolidated_weights()
        if self.average is not None:
            self.average.update(weights)


def save(run: Run, state: TrainingState) -> float:
    """Write the checkpoint of `state.step` and return the seconds that it took; collective.

    Raises `WorkFailed` where weights are no longer finite, or files cannot be written: what was written is
    then deleted. Raises `Superseded` where a later incarnation has taken over.
    """
    began = time.monotonic()
    weights = state.consolidated_weights()
    if broken := broken_weights(weights):
        # The losses were those before the update that broke it.
        raise WorkFailed(
            f"{run.path}: step {state.step}: weights of {', '.join(broken)} are no longer finite"
        )
    try:
        folder = from_rank_0(state.ranks, lambda: checkpoints.begin(run, state.step, state.fence))
        _write(folder, state, weights["mapper"])
        wait_for_all(state.ranks)
        from_rank_0(state.ranks, lambda: checkpoints.commit(run, state.step, state.fence, began))
    except BaseException as error:
        if state.ranks.rank == 0:
            checkpoints.abandon(run, state.step, state.fence)
        if not isinstance(error, _NOT_WRITTEN) or lost_another(error):
            raise
        told = str(error).splitlines()[0]
        raise WorkFailed(f"{run.path}: the checkpoint of step {state.step} is not written: {told}") from error
    state.saved = state.step
    seconds = time.monotonic() - began
    if state.ranks.rank == 0:
        log.info("%s: checkpoint %s, %.1f s", run.path, step_name(state.step), seconds)
        try:
            checkpoints.keep_newest_engines(run, state.experiment.training.keep_engines, state.fence)
        except OSError as error:
            log.warning("%s: older engines cannot be deleted: %s", run.path, error)
    return seconds


def restore(checkpoint: Path, state: TrainingState) -> None:
    """Bring `state` to where the checkpoint was written; collective."""
    engines = checkpoint / checkpoints.ENGINES
    place = json.loads((engines / "state.json").read_text(encoding="utf-8"))
    state.step, state.batches_drawn = place["step"], place["batches_drawn"]
    state.saved = state.step
    other_ranks = place["world_size"] != state.ranks.world_size
    for name, engine in state.engines.items():
        engine.load(engines / name, other_ranks=other_ranks)
        alive()
    for name, network in state.method.fixed.items():
        network.load_state_dict(load_file(checkpoint / f"{name}.safetensors"))
    if state.average is not None:
        average = load_file(checkpoint / "mapper-ema.safetensors")
        state.average.weights = {name: tensor.clone() for name, tensor in average.items()}
    if other_ranks:  # which have no states of their own to go on from
        seed_everything(derive_seed(state.experiment.seed, "resumed", state.step, state.ranks.rank))
    else:
        file = engines / _random_file(state.ranks.rank)
        _set_random_state(torch.load(file, weights_only=True))


def broken_weights(weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Networks among these state dictionaries of which a weight is no longer finite."""
    return [
        network
        for network, tensors in weights.items()
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point())
    ]


def seed_everything(seed: int) -> None:
    """Seed every generator that a network, a loss or a library may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (for libraries that draw from NumPy's global state)


def _write(folder: Path, state: TrainingState, mapper: Mapping[str, Tensor]) -> None:
    """This rank's part of a checkpoint."""
    engines = folder / checkpoints.ENGINES
    for name, engine in state.engines.items():
        engine.save(engines / name, {})
        alive()
    torch.save(_random_state(), engines / _random_file(state.ranks.rank))
    if state.average is None:
        return
    files = {"mapper": mapper, "mapper-ema": state.average.weights}
    files |= {name: network.state_dict() for name, network in state.method.fixed.items()}
    for name, tensors in files.items():
        # Not by safetensors' own writer, whose files nobody but their owner may read, whatever the umask.
        whole = in_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        (folder / f"{name}.safetensors").write_bytes(whole)
    (folder / "config.yaml").write_text(dump(state.experiment), encoding="utf-8")
    place = {
        "step": state.step,
        "batches_drawn": state.batches_drawn,
        "world_size": state.ranks.world_size,
    }
    (engines / "state.json").write_text(json.dumps(place), encoding="utf-8")


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.pt"


def _random_state() -> dict[str, Any]:
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(numpy, dict)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": numpy | {"state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    inner = state["numpy"]["state"]
    key = np.array(inner["key"], dtype=np.uint32)
    np.random.set_state(state["numpy"] | {"state": inner | {"key": key}})  # noqa: NPY002
