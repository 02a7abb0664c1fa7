"""DeepSpeed's configuration from an experiment's: which keys follow, and which pass through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from xr2ct.config import Experiment
from xr2ct.errors import UserError, nearest

Precision = Literal["fp32", "bf16", "fp16"]

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

_THEIRS = (
    "activation_checkpointing",
    "aio",
    "bf16",
    "checkpoint",
    "comms_logger",
    "communication_data_type",
    "data_types",
    "disable_allgather",
    "dump_state",
    "flops_profiler",
    "fp16",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "steps_per_print",
    "timers",
    "use_node_local_storage",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)
"""DeepSpeed's keys that pass through. It ignores an unknown one without a word, so they are listed."""


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
    _check_keys(experiment.deepspeed)
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


def _check_keys(theirs: Mapping[str, Any]) -> None:
    for key, ours in _OURS.items():
        if _has(theirs, key):
            raise UserError(f"deepspeed.{key}: follows from {ours}; set that instead")
    for key in theirs:
        if key not in _THEIRS:
            raise UserError(f"unknown key 'deepspeed.{key}': {nearest(key, _THEIRS)}")


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
