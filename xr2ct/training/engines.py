"""One DeepSpeed engine a network: ZeRO 0–3 in fp32, bf16 or fp16, behind the `Engine` that methods see.

The engine's own forward hooks its output, so a loss of one network that went back through another's engine
would start that one's reduction too. `held` gives the bare network, its parameters frozen, instead; under
ZeRO 3 its submodules' own hooks gather and release what they need. Freezing before `deepspeed.initialize`
would keep the parameters out of the optimizer for good, so it is done around each use.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.methods.base import Method
from xr2ct.training.distributed import Ranks

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
_TAG = "state"

_OURS = {
    "train_batch_size": "training.batch",
    "train_micro_batch_size_per_gpu": "training.batch and training.accumulation",
    "gradient_accumulation_steps": "training.accumulation",
    "gradient_clipping": "optimizer.gradient_clipping",
    "optimizer": "optimizer",
    "scheduler": "training.warmup_steps and optimizer.lr_per_sample",
    "amp": "training.precision",
    "torch_autocast": "training.precision",
    "fp16.enabled": "training.precision",
    "bf16.enabled": "training.precision",
    "zero_optimization.stage": "training.zero_stage",
}
"""DeepSpeed's keys that follow from the experiment's own, and which those are."""


def build_engines(
    method: Method, experiment: Experiment, precision: Precision, ranks: Ranks
) -> dict[str, DeepSpeedNetwork]:
    """An engine for each of `method.networks`, and `method.fixed` moved to this rank's device.

    Raises `UserError` where ranks and accumulation do not divide the batch, or `deepspeed:` has a wrong key.
    """
    config = deepspeed_config(experiment, precision, ranks.world_size)
    for network in method.fixed.values():
        network.to(ranks.device)
    return {
        name: DeepSpeedNetwork(name, network, experiment, config) for name, network in method.networks.items()
    }


def deepspeed_config(experiment: Experiment, precision: Precision, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration: what the experiment says, under the user's own `deepspeed:` keys."""
    training = experiment.training
    parts = world_size * training.accumulation
    if training.batch % parts:
        raise UserError(
            f"training.batch {training.batch} cannot be divided by {world_size} ranks × "
            f"{training.accumulation} accumulation steps; the nearest batch that can is "
            f"{max(1, round(training.batch / parts)) * parts}"
        )
    for key, ours in _OURS.items():
        if _has(experiment.deepspeed, key):
            raise UserError(f"deepspeed.{key}: follows from {ours}; set that instead")
    config: dict[str, Any] = {
        "train_batch_size": training.batch,
        "train_micro_batch_size_per_gpu": training.batch // parts,
        "gradient_accumulation_steps": training.accumulation,
        "gradient_clipping": experiment.optimizer.gradient_clipping,
        "zero_optimization": {"stage": training.zero_stage},
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        # torch's AdamW everywhere: DeepSpeed's own would be compiled at the first use.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    return _merged(config, experiment.deepspeed)


class DeepSpeedNetwork:
    """A trained network under its own DeepSpeed engine; see `methods.base.Engine`."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        experiment: Experiment,
        config: Mapping[str, Any],
    ) -> None:
        import deepspeed  # only once DS_ACCELERATOR is set, which it reads when imported

        deepspeed.utils.logger.setLevel(logging.WARNING)
        self.name = name
        self.accumulation = experiment.training.accumulation
        self._zero_stage = experiment.training.zero_stage
        self._gone_back = 0
        # Each engine alters its dictionary.
        self._engine, *_ = deepspeed.initialize(
            model=network, optimizer=_adamw(network, experiment), config=copy.deepcopy(dict(config))
        )

    @property
    def module(self) -> nn.Module:
        """The bare network."""
        return self._engine.module

    @property
    def skipped_steps(self) -> int:
        """Updates left out since the start because fp16 gradients overflowed."""
        return self._engine.skipped_steps

    def __call__(self, x: Tensor) -> Tensor:
        """See `methods.base.Engine`."""
        output: Tensor = self._engine(x)
        return output

    @contextmanager
    def held(self) -> Iterator[nn.Module]:
        """The bare network with frozen parameters: gradients pass through it and leave none in it."""
        self.module.requires_grad_(False)
        try:
            yield self.module
        finally:
            self.module.requires_grad_(True)

    def backward(self, output: Tensor, gradient: Tensor) -> None:
        """See `methods.base.Engine.backward`."""
        surrogate = (output.to(gradient.dtype) * gradient).sum()
        self._engine.backward(surrogate, scale_wrt_gas=False)
        self._gone_back += 1
        if self._gone_back < self.accumulation:
            self._engine.step()  # how DeepSpeed counts micro-batches; it updates at the last one

    def step(self) -> None:
        """Update the network."""
        assert self._gone_back == self.accumulation, (self._gone_back, self.accumulation)
        self._gone_back = 0
        self._engine.step()

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next updates."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr

    def save(self, folder: Path, client_state: Mapping[str, Any]) -> None:
        """Write weights and optimizer state into `folder`; every rank calls it."""
        state = {**client_state, "world_size": dist.get_world_size()}
        self._engine.save_checkpoint(str(folder), tag=_TAG, client_state=state, save_latest=False)

    def load(self, folder: Path) -> dict[str, Any]:
        """Restore what `save` wrote and return its client state; every rank calls it."""
        path, state = self._engine.load_checkpoint(str(folder), tag=_TAG)
        if path is None:
            raise WorkFailed(f"{folder}: no state of the {self.name}'s engine in it")
        return state

    def consolidated_weights(self) -> dict[str, Tensor]:
        """The network's state dict, whole and in fp32, on every rank; every rank calls it."""
        from deepspeed.utils import safe_get_full_fp32_param

        whole = {}
        parameters = dict(self.module.named_parameters())
        for name, value in self.module.state_dict().items():
            master = safe_get_full_fp32_param(parameters[name]) if name in parameters else None
            whole[name] = (value if master is None else master).detach().clone()
        return whole


def _adamw(network: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """The loop sets the learning rate before each outer step."""
    told = experiment.optimizer
    return torch.optim.AdamW(
        network.parameters(), lr=0.0, betas=told.betas, eps=told.eps, weight_decay=told.weight_decay
    )


def _has(config: Mapping[str, Any], key: str) -> bool:
    head, _, rest = key.partition(".")
    if not rest:
        return head in config
    section = config.get(head)
    return isinstance(section, Mapping) and _has(section, rest)


def _merged(config: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in theirs.items():
        section = config.get(key)
        config[key] = (
            _merged(dict(section), value)
            if isinstance(section, dict) and isinstance(value, Mapping)
            else value
        )
    return config
