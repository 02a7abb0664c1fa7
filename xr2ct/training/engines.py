"""One DeepSpeed engine a network: ZeRO 0–3 in fp32, bf16 or fp16, behind the `Engine` that methods see.

The engine's own forward hooks its output, so a loss of one network that went back through another's engine
would start that one's reduction too. `held` gives the bare network, its parameters frozen, instead; under
ZeRO 3 its submodules' own hooks gather and release what they need. Freezing before `deepspeed.initialize`
would keep the parameters out of the optimizer for good, so it is done around each use.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor, nn

from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.methods.base import Method
from xr2ct.training import repartition
from xr2ct.training.deepspeed_config import Precision, deepspeed_config
from xr2ct.training.distributed import Ranks
from xr2ct.training.watchdog import alive

_TAG = "state"


def build_engines(
    method: Method, experiment: Experiment, precision: Precision, ranks: Ranks
) -> dict[str, DeepSpeedNetwork]:
    """An engine for each of `method.networks`, and `method.fixed` moved to this rank's device.

    Raises `UserError` where ranks and accumulation do not divide the batch, or `deepspeed:` has a wrong key.
    """
    config = deepspeed_config(experiment, precision, ranks.world_size)
    _check_precision(precision)
    for network in method.fixed.values():
        network.to(ranks.device)
    return {
        name: DeepSpeedNetwork(name, network, experiment, config) for name, network in method.networks.items()
    }


class DeepSpeedNetwork:
    """A trained network under its own DeepSpeed engine; see `methods.base.Engine`."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        experiment: Experiment,
        config: Mapping[str, Any],
    ) -> None:
        deepspeed = _deepspeed()
        self.name = name
        self.accumulation = experiment.training.accumulation
        self._gone_back = 0
        try:
            # A copy, since each engine alters its dictionary.
            self._engine, *_ = deepspeed.initialize(
                model=network, optimizer=_adamw(network, experiment), config=copy.deepcopy(dict(config))
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UserError(f"deepspeed: {error.title}: {key}: {first['msg']}") from None
        except NotImplementedError as error:
            raise UserError(f"deepspeed: {error}") from None
        optimizer = self._engine.optimizer
        # What half precision without ZeRO uses. It keeps whole fp32 weights beside the network's own.
        self._whole_masters = hasattr(optimizer, "fp32_groups")
        if self._whole_masters:
            optimizer.optimizer.state.clear()  # an update by zero, already counted in Adam's bias correction

    @property
    def module(self) -> nn.Module:
        """The bare network."""
        return self._engine.module

    @property
    def skipped_steps(self) -> int:
        """Updates left out since the start because fp16 gradients overflowed."""
        return self._engine.skipped_steps

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """See `methods.base.Engine`."""
        alive()
        output: Tensor = self._engine(*inputs)
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
        alive()
        surrogate = (output.to(gradient.dtype) * gradient).sum()
        if self._whole_masters:
            # This optimizer divides by a loss scale that the engine does not multiply by (DeepSpeed #8393).
            scale = self._engine.optimizer.loss_scale
            surrogate.register_hook(lambda g: torch.full_like(g, scale))
        self._engine.backward(surrogate, scale_wrt_gas=False)
        self._gone_back += 1
        if self._gone_back < self.accumulation:
            self._engine.step()  # how DeepSpeed counts micro-batches; it updates at the last one

    def step(self) -> None:
        """Update the network."""
        alive()
        assert self._gone_back == self.accumulation, (self._gone_back, self.accumulation)
        self._gone_back = 0
        try:
            self._engine.step()
        except Exception as error:  # DeepSpeed raises nothing narrower
            if "loss scale already at minimum" not in str(error):
                raise
            raise WorkFailed(
                f"the {self.name}'s fp16 gradients overflow at the smallest loss scale; train in bf16 or fp32"
            ) from None

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next updates."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr

    def save(self, folder: Path, client_state: Mapping[str, Any]) -> None:
        """Write weights and optimizer state into `folder`; every rank calls it."""
        self._engine.save_checkpoint(
            str(folder), tag=_TAG, client_state=dict(client_state), save_latest=False
        )

    def load(self, folder: Path, *, other_ranks: bool = False) -> dict[str, Any]:
        """Restore what `save` wrote and return its client state; every rank calls it.

        `other_ranks`: another number of ranks wrote it. Exact, under ZeRO 0 and 1.
        """
        in_parts = other_ranks and self._engine.zero_optimization()
        path, state = self._engine.load_checkpoint(str(folder), tag=_TAG, load_module_only=in_parts)
        if path is None:
            raise WorkFailed(f"{folder}: no state of the {self.name}'s engine in it")
        if in_parts:
            self._load_parts(folder / _TAG)
            counts = ("global_steps", "global_samples", "skipped_steps")
            for name in counts:
                setattr(self._engine, name, state.pop(name))
        return state

    def _load_parts(self, folder: Path) -> None:
        optimizer = self._engine.optimizer
        if optimizer.round_robin_gradients:
            raise UserError(
                "deepspeed.zero_optimization.round_robin_gradients: what was saved depends on the number of "
                "ranks, which has changed; keep the number"
            )
        sizes = [part.numel() for part in optimizer.single_partition_of_fp32_groups]
        rank, world_size = dist.get_rank(), dist.get_world_size()
        own = repartition.part_of(repartition.parts(folder), rank, sizes)
        optimizer.load_state_dict([own] * world_size, load_optimizer_states=True, load_from_fp32_weights=True)

    def consolidated_weights(self) -> dict[str, Tensor]:
        """The network's state dict, whole, as the optimizer keeps it: in fp32; every rank calls it.

        Under ZeRO 3, and in half precision under ZeRO 1 and 2, parts are gathered from all ranks.
        """
        from deepspeed.utils import safe_get_full_fp32_param

        masters = self._masters()
        whole = {}
        for name, value in self.module.state_dict(keep_vars=True).items():
            master = masters.get(value)
            if master is None and isinstance(value, nn.Parameter):
                master = safe_get_full_fp32_param(value)
            whole[name] = (value if master is None else master).detach().clone()
        return whole

    def _masters(self) -> dict[Tensor, Tensor]:
        if not self._whole_masters:
            return {}
        optimizer = self._engine.optimizer
        pairs = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
        return {half: full for halves, fulls in pairs for half, full in zip(halves, fulls, strict=True)}


def _deepspeed() -> Any:
    """The package, imported only now: it reads DS_ACCELERATOR, which `start_distributed` sets."""
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    # On CPU it would otherwise compile shared-memory collectives, two minutes, which only inference uses.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _check_precision(precision: Precision) -> None:
    accelerator = _deepspeed().accelerator.get_accelerator()
    supported = {"fp16": accelerator.is_fp16_supported, "bf16": accelerator.is_bf16_supported}
    if precision in supported and not supported[precision]():
        raise UserError(
            f"training.precision {precision}: not what this {accelerator.device_name()} computes in; use auto"
        )


def _adamw(network: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """The loop sets the learning rate before each outer step."""
    told = experiment.optimizer
    return torch.optim.AdamW(
        network.parameters(), lr=0.0, betas=told.betas, eps=told.eps, weight_decay=told.weight_decay
    )
