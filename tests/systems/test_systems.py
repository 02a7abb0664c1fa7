"""Every system that experiments compare: trained, lost, gone on with, and scored, on synthetic chests."""

from __future__ import annotations

import math
import shutil
from typing import Any

import pytest
from tiny import losses
from trainer import Trainer

from xr2ct.evaluation.results import read_results
from xr2ct.evaluation.sweep import evaluate
from xr2ct.projection.geometry import EIGHT_ANGLES
from xr2ct.run import Run

ONE = {"views": [90]}
TWO = {"views": [90, 0]}
OBLIQUE = {"views": [45, 135, 225, 315]}
UNET = {"name": "unet", "channels": [4, 8]}
SEGRESNET = {"name": "segresnet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
AUTOENCODER = {"name": "autoencoder", "base_channels": 8, "max_channels": 16, "latent": 16}
DENSE = {"encoder_channels": 8, "growth": 4, "blocks": [1] * 5, "bottom_channels": 16, "least_channels": 4}
GAN = {"name": "gan", "discriminator": {"base_channels": 4}}

# Without a method neural optimal transport, as the trainer's configuration has it.
SYSTEMS: dict[str, dict[str, Any]] = {
    "one-view": {"data": ONE, "mapper": UNET},
    "two-views": {"data": TWO, "mapper": UNET},
    "four-views": {"data": {"views": [90, 0, 270, 180]}, "mapper": UNET},
    "eight-views": {"data": {"views": list(EIGHT_ANGLES)}, "mapper": UNET},
    "segresnet": {"data": TWO, "mapper": SEGRESNET},
    "noise-of-the-patient": {"data": ONE, "mapper": UNET, "lift": {"kind": "noise", "noise": "patient"}},
    "noise-of-the-iteration": {"data": ONE, "mapper": UNET, "lift": {"kind": "noise", "noise": "iteration"}},
    "rotate": {"data": OBLIQUE, "mapper": UNET, "lift": {"kind": "rotate"}},
    "backproject": {"data": OBLIQUE, "mapper": UNET, "lift": {"kind": "backproject"}},
    "autoencoder": {"data": TWO, "mapper": AUTOENCODER},
    "autoencoder-l2": {"data": TWO, "mapper": {**AUTOENCODER, "l2_normalise": True}},
    "x2ct-gan-one-view": {"data": ONE, "mapper": {"name": "x2ct-gan", **DENSE}, "method": GAN},
    "x2ct-gan": {"data": TWO, "mapper": {"name": "x2ct-gan", **DENSE}, "method": GAN},
    "x2ct-gan-without-adversary": {
        "data": TWO,
        "mapper": {"name": "x2ct-gan", **DENSE},
        "method": {"name": "gan", "adversarial_weight": 0},
    },
    "ccx-raynet": {"data": TWO, "mapper": {"name": "ccx-raynet", **DENSE}, "method": GAN},
    "x2ct-gan-by-transport": {"data": TWO, "mapper": {"name": "x2ct-gan", **DENSE}},
    "l1": {"data": TWO, "mapper": UNET, "method": {"name": "regression", "mapper_updates": 2}},
    "mse": {
        "data": TWO,
        "mapper": UNET,
        "method": {"name": "regression", "loss": "mse", "mapper_updates": 2},
    },
    "flow-from-noise": {
        "data": TWO,
        "mapper": UNET,
        "method": {"name": "flow", "sigma": 0.5, "spread": 0.4, "mapper_updates": 2, "steps": 2},
    },
    "blur-of-the-spread": {
        "data": TWO,
        "mapper": UNET,
        "method": {
            "name": "neural-ot",
            "mapper_updates": 1,
            "blur_of_spread": 1.0,
            "potential": {"base_channels": 2, "max_channels": 4},
            "features": {"widths": [2, 2, 4, 4], "calibration_batches": 2},
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_trains_goes_on_and_is_scored(trainer: Trainer, system: str) -> None:
    training = {"steps": 3, "warmup_steps": 0, "checkpoint_every": 1}
    evaluation = {"cohorts": ["lidc-idri"], "batch": 1}
    sections = {"training": training, "evaluation": evaluation, **SYSTEMS[system]}
    config, whole = trainer.config(**sections), trainer.run()
    trainer.finish(config)
    assert [record["step"] for record in whole.metrics()] == [1, 2, 3]

    lost = as_if_lost_in_step_3(whole)
    said = trainer.finish(config, f"run_root={lost.path.parent}")
    assert "going on from step 2 of 3" in said
    assert losses(lost) == losses(whole)
    for name in ("mapper", "mapper-ema"):
        files = [run.checkpoint(3) / f"{name}.safetensors" for run in (lost, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()

    evaluate(lost, "last")
    scored = {(r.split, r.source): r for r in read_results(lost)}
    for split, case in (("val", "case3"), ("test", "case4")):
        result = scored[split, "step-000003"]
        assert result.cases == [case]
        assert math.isfinite(result.mean("honest/psnr"))
    assert lost.best_step() == 3


def as_if_lost_in_step_3(whole: Run) -> Run:
    """What stays of a run whose machine goes after it has written the third step's losses."""
    lost = Run(whole.path.parent / "lost" / whole.path.name)
    shutil.copytree(whole.path, lost.path, symlinks=True)
    shutil.rmtree(lost.checkpoint(3))
    return lost
