"""Every configuration that comes with the program: all of its members are sound, at both scales."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr2ct.config import Experiment, load_experiment, load_members
from xr2ct.config_files import read_yaml
from xr2ct.reporting.exhibit import maker
from xr2ct.summary import format_summary, summarise
from xr2ct.training.start import completed

CONFIGS = Path(__file__).parents[1] / "configs"
NOT_EXPERIMENTS = {"cohorts.yaml", "scales.yaml"}
FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.name not in NOT_EXPERIMENTS)
STUDIES = [path for path in FILES if path.name != "demo.yaml"]


def members(path: Path, scale: str) -> list[Experiment]:
    """All that a file sweeps over, and every choice of its axes, swept over or not."""
    if path.name == "demo.yaml":  # has one scale, its own
        return [load_experiment(path)]
    found = [experiment for experiment, _ in load_members(path, [f"scale={scale}"])]
    for axis, sets in read_yaml(path).get("variants", {}).items():
        there = {scale, *(experiment.variants[axis] for experiment in found)}
        for choice in sets.keys() - there if axis != "scale" else ():
            found += [e for e, _ in load_members(path, [f"{axis}={choice}", f"scale={scale}"])]
    return found


def system_of(experiment: Experiment) -> str:
    """The same for those with the same network and method, whatever their keys."""
    return str((experiment.mapper["name"], experiment.method["name"]))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_member_at_both_scales(path: Path) -> None:
    """Complete and consistent, told apart by their labels, small ones on chests that are made for them."""
    for scale in ("paper", "small"):
        for experiment in members(path, scale):
            completed(experiment)
            assert experiment.label
            assert experiment.variants["scale"] == scale
    for experiment in members(path, "small"):
        assert experiment.training.steps <= 100
        assert experiment.run_root == Path("runs/small")
        assert {experiment.data.cohort, *experiment.evaluation.cohorts} <= set(experiment.data.phantoms)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_its_exhibits_are_there_to_be_made(path: Path) -> None:
    for experiment, _ in load_members(path):
        for name in experiment.exhibits:
            maker(name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_it_says_what_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.slow
def test_summaries_can_be_made() -> None:
    """Of every pair of network and method, small: they are built, and tensors without data go through."""
    for experiment in {system_of(e): e for path in FILES for e in members(path, "small")}.values():
        told = summarise(experiment)
        assert told["step_flops"] > 0
        assert told["networks"]["mapper"]["parameters"] > 0
        assert "an outer step" in format_summary(told)
