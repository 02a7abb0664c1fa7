"""Steps towards agreement with the views at a mapper's end: what they do, learn, refuse, and leave alone."""

from __future__ import annotations

import shutil
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from synthetic_store import CUBE_MM, chest, write_store
from tiny import resolved
from torch import Tensor
from trainer import Trainer, processes

from xr2ct.cohorts.reader import read_volume_file
from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.memory_limit import GB, fit
from xr2ct.methods.mappers import mapper_of
from xr2ct.models.consistency import Consistency
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.projection.views import scale_views
from xr2ct.stages import Stages, load_stages
from xr2ct.summary import summarise
from xr2ct.window import HuWindow

__all__ = ["processes"]

WINDOW = HuWindow()
GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=64)
VIEWS = (90.0, 0.0)
UNET = {"name": "unet", "channels": (4, 8)}
UPRIGHT = {"contrast": None, "rotation_deg": 0}


SCALE = 5.0


def layer(steps: int = 3) -> Consistency:
    return Consistency(steps, VIEWS, GEOMETRY, CUBE_MM, WINDOW, SCALE)


def mapper(steps: int, network: dict[str, Any] = UNET, **sections: Any) -> Mapper:
    data = {"size": 16, "views": list(VIEWS), "xray_scale": SCALE} | sections.pop("data", {})
    keys = {"data": data, "augmentation": UPRIGHT} | sections
    experiment = Experiment(name="test", mapper={**network, "consistency": steps}, **keys)
    return build_mapper(experiment, GEOMETRY, CUBE_MM)


def lines_of(units: Tensor) -> Tensor:
    mu = attenuation(WINDOW.to_hu(units[:, 0]))
    return project(mu, (CUBE_MM / mu.shape[-1],) * 3, GEOMETRY, VIEWS)


def views_of(hu: Tensor) -> Tensor:
    """(b, view, row, col) of chests (b, z, y, x), scaled."""
    return project(attenuation(hu), (CUBE_MM / hu.shape[-1],) * 3, GEOMETRY, VIEWS) / SCALE


FINE = torch.stack([chest(number, "lidc-idri") for number in range(3)])
TRUE = WINDOW.to_unit(F.avg_pool3d(FINE, 2))[:, None]
WRONG = TRUE.roll(1, 0)
"""Each patient's is another's."""


def apart(units: Tensor, views: Tensor) -> float:
    """Relative L2 between the views and the re-projection."""
    return float((lines_of(units) / SCALE - views).norm() / views.norm())


@torch.no_grad()
def test_volumes_come_to_agree_and_get_better() -> None:
    views = views_of(FINE)
    found = layer()(WRONG, views)
    assert apart(found, views) < 0.6 * apart(WRONG, views)
    assert (found - TRUE).square().mean() < 0.9 * (WRONG - TRUE).square().mean()
    # More steps, nearer; and each patient on his own.
    assert apart(layer(8)(WRONG, views), views) < apart(found, views)
    torch.testing.assert_close(layer()(WRONG[1:2], views[1:2]), found[1:2], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_step_of_nothing_leaves_the_volume_as_it_is() -> None:
    consistency = layer()
    consistency.step.fill_(-50.0)
    volumes = 1.5 * WRONG - 0.2  # beyond the window too
    torch.testing.assert_close(consistency(volumes, views_of(FINE)), volumes, rtol=0, atol=1e-6)


@torch.no_grad()
def test_line_integrals_say_how_much_a_patient_attenuates() -> None:
    light = 0.8 * TRUE
    found = layer()(light, lines_of(TRUE) / SCALE)
    errors = [float((v - TRUE).square().mean()) for v in (found, light)]
    assert errors[0] < 0.5 * errors[1]


def test_gradients_reach_volume_and_steps() -> None:
    """Against differences, of a volume off its bounds and with the step's length held."""
    consistency, views = layer(1), lines_of(TRUE[:1]) / SCALE
    volume = (0.05 + 0.8 * WRONG[:1]).requires_grad_()
    consistency(volume, views).sub(TRUE[:1]).square().sum().backward()
    assert volume.grad is not None and consistency.step.grad is not None
    for parameter in (consistency.step, consistency.own):
        assert parameter.grad is not None
        with torch.no_grad():
            losses = []
            for sign in (1, -1):
                parameter.add_(sign * 0.01)
                losses.append(consistency(volume, views).sub(TRUE[:1]).square().sum())
                parameter.sub_(sign * 0.01)
        if parameter is consistency.step:  # the other's length is not differentiated
            assert float(losses[0] - losses[1]) / 0.02 == pytest.approx(float(parameter.grad), rel=0.02)
    assert volume.grad.abs().sum() > 0 and consistency.own.grad is not None and consistency.own.grad != 0


def test_steps_are_learnt() -> None:
    consistency, views = layer(2), views_of(FINE)
    optimizer = torch.optim.Adam(consistency.parameters(), lr=0.1)
    losses = []
    for _ in range(8):
        loss = (consistency(WRONG, views) - TRUE).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "network", [UNET, {"name": "autoencoder", "base_channels": 8, "max_channels": 8, "latent": 8}]
)
def test_any_network_can_end_so(network: dict[str, Any]) -> None:
    """Of volumes and of views, with two numbers a step, in whatever precision the weights are."""
    plain, ending = (mapper(steps, network) for steps in (0, 3))
    added = {k: v for k, v in ending.state_dict().items() if k not in plain.state_dict()}
    assert sum(v.numel() for v in added.values()) == 6
    views = views_of(FINE[:2])
    with torch.no_grad():
        without, volume = plain(views), ending(views)
        assert ending.consistency is not None
        torch.testing.assert_close(volume, ending.consistency(without, views))
        half = ending.to(torch.bfloat16)(views)
    assert half.dtype == torch.bfloat16
    # The weights' rounding is that of the network; the steps add none of line integrals.
    with torch.no_grad():
        own = ending.consistency.float()(plain.to(torch.bfloat16)(views), views).float()
    assert (half.float() - own).norm() < 0.02 * own.norm()


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"data": {"size": 64, "window": 32}}, "data.window"),
        ({"data": {"size": 16, "scaling": "minmax"}}, "data.scaling"),
        ({"data": {"xray_scale": "max"}}, "data.xray_scale"),
        ({"augmentation": {**UPRIGHT, "contrast": (0.5, 1.5)}}, "augmentation.contrast"),
        ({"augmentation": {**UPRIGHT, "detector": {"scatter": (0.0, 1.0)}}}, "augmentation.detector"),
        ({"augmentation": {**UPRIGHT, "rotation_deg": 5}}, "augmentation.rotation_deg"),
        ({"augmentation": {**UPRIGHT, "flip": "xray"}}, "augmentation.flip"),
        ({"augmentation": {**UPRIGHT, "pose": {"shift_mm": 5}}}, "augmentation.pose"),
    ],
)
def test_what_no_volume_agrees_with_is_refused(sections: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"mapper.consistency does not go with {key}"):
        mapper(2, **sections)
    mapper(0, **sections)


def test_wrong_keys_are_named() -> None:
    with pytest.raises(UserError, match=r"mapper unet: consistency: .*greater than or equal to 0, got -1"):
        mapper(-1)
    flow = {"method": {"name": "flow"}, "mapper": {**UNET, "consistency": 2}}
    with pytest.raises(UserError, match=r"mapper.consistency: method flow .*--refine"):
        mapper_of(Experiment(name="test", augmentation=UPRIGHT, **flow), GEOMETRY, CUBE_MM)


def test_a_summary_counts_the_steps_but_for_the_rays() -> None:
    plain, ending = (
        summarise(
            Experiment(
                name="test",
                mapper={"name": "unet", "channels": (4, 8), "consistency": steps},
                method={"name": "regression", "mapper_updates": 1},
                data={"size": 64, "xray_scale": SCALE},
                augmentation=UPRIGHT,
                training={"precision": "bf16"},
            ),
            "h100-80gb",
            1,
        )
        for steps in (0, 3)
    )
    of_plain, of_ending = plain["networks"]["mapper"], ending["networks"]["mapper"]
    assert of_ending["parameters"] == of_plain["parameters"] + 6
    assert of_ending["flops"] > of_plain["flops"] and of_ending["saved_bytes"] > of_plain["saved_bytes"]


def test_it_is_never_cut_into_windows() -> None:
    """For views agree with whole volumes."""
    ending = mapper(2, data={"size": 96, "views": list(VIEWS)})
    experiment = Experiment(name="test", data={"size": 96, "views": list(VIEWS)}, resolved=resolved(GEOMETRY))
    with pytest.raises(UserError, match=r"96³ take about"):
        fit(Stages(ending, experiment), 0.01 * GB)


@torch.no_grad()
def test_a_real_chest(real_data: Path) -> None:
    native = read_volume_file(real_data / "chest" / "ct-64" / "ct-64.nrrd")
    hu = torch.from_numpy(np.asarray(native.hu, np.float32))
    fine = F.interpolate(hu[None, None], (64,) * 3, mode="trilinear")[0]
    truth, views = WINDOW.to_unit(F.avg_pool3d(fine, 2))[None], views_of(fine)
    start = F.avg_pool3d(truth, 5, stride=1, padding=2, count_include_pad=False)
    found = layer()(start, views)
    assert apart(found, views) < 0.6 * apart(start, views)
    assert (found - truth).square().mean() < (start - truth).square().mean()


def test_trained_resumed_and_reconstructed(tmp_path: Path, processes: ForkServerContext) -> None:
    """As `xr2ct train` does: its steps are learnt, a resumed run ends at the same weights, and checkpoints
    reconstruct."""
    store = write_store(tmp_path, ["train"] * 4, 16, (0.0, 90.0, 270.0), 32)
    trainer = Trainer(tmp_path, store.path.parent, processes)
    sections: dict[str, dict[str, Any]] = {
        "data": {"views": [90, 0], "xray_scale": SCALE},
        "mapper": {"name": "unet", "channels": [4, 8], "consistency": 2},
        "method": {"name": "regression", "mapper_updates": 2},
        "augmentation": UPRIGHT,
        "training": {"steps": 4, "warmup_steps": 1, "checkpoint_every": 2},
        "optimizer": {"lr_per_sample": 1e-2},
    }
    config = trainer.config("ending", **sections)
    trainer.finish(config)
    run = trainer.run("ending").path
    weights = [load_file(run / "checkpoints" / f"step-{n:06d}" / "mapper.safetensors") for n in (0, 4)]
    for name in ("consistency.step", "consistency.own"):
        assert (weights[1][name] - weights[0][name]).abs().min() > 1e-4
    shutil.rmtree(run / "checkpoints" / "step-000004")
    trainer.finish(config)
    again = load_file(run / "checkpoints" / "step-000004" / "mapper.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in weights[1].items())

    stages = load_stages(run / "checkpoints" / "step-000004")
    stored = store.xray(store.cases[0], "x2ct", VIEWS)
    views = torch.from_numpy(scale_views(stored, SCALE))[None]
    made = stages(views)
    assert stages.mapper.consistency is not None
    stages.mapper.consistency = None
    assert made.shape == (1, 1, 16, 16, 16) and (stages(views) - made).abs().max() > 1e-3
