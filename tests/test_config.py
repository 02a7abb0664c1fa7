"""Configuration: inherited, overridden, validated whole, written out and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr2ct.config import Experiment, differences, dump, load_experiment, load_members, run_path
from xr2ct.errors import UserError

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text("name: small\ntraining: {steps: 10, warmup_steps: 2}\n")
    return path


def test_what_is_written_reads_back_equal(config: Path, tmp_path: Path) -> None:
    experiment = load_experiment(config, ["data.views=[PA, LLAT]", "method.blur=0.5"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(experiment))
    assert load_experiment(copy) == experiment
    assert experiment.data.views == (180.0, 270.0)


def test_a_base_is_merged_key_by_key(config: Path) -> None:
    child = config.with_name("child.yaml")
    child.write_text("base: experiment.yaml\nname: child\ntraining: {steps: 20}\n")
    training = load_experiment(child).training
    assert (training.steps, training.warmup_steps) == (20, 2)


def test_a_base_of_itself_is_refused(config: Path) -> None:
    config.write_text("base: experiment.yaml\nname: loop\n")
    with pytest.raises(UserError, match="inherits from itself"):
        load_experiment(config)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("traning.steps=3", "unknown key 'traning': did you mean 'training'"),
        ("training.step=3", "unknown key 'training.step': did you mean 'steps'"),
        ("training.ema.evry=3", "unknown key 'training.ema.evry': did you mean 'every'"),
        ("training.steps=many", "training.steps: .*integer.*'many'"),
        ("training.zero_stage=4", "training.zero_stage: .*3"),
        ("data.views=[]", "data.views: expected at least one view"),
        ("data.views=[0, 360]", "data.views: .*each angle once"),
        ("data.cohort=lidc", "did you mean 'lidc-idri'"),
        ("training.warmup_steps=10", r"warmup_steps \(10\) must be below training.steps \(10\)"),
        ("steps", "expected key.sub=value"),
        ("name.x=1", "'name' is a value, not a section"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(config: Path, override: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_experiment(config, [override])


def test_a_file_that_is_not_yaml_names_the_line(config: Path) -> None:
    config.write_text("name: x\ntraining: [1\n")
    with pytest.raises(UserError, match=r"experiment.yaml: not YAML \(line 3"):
        load_experiment(config)


def test_scientific_notation_is_a_number(config: Path) -> None:
    assert load_experiment(config, ["optimizer.lr_per_sample=1e-5"]).optimizer.lr_per_sample == 1e-5


def test_a_run_lives_where_its_name_and_overrides_say(config: Path) -> None:
    overrides = ["seed=3", "data.views=[0]", "run_root=/scratch"]
    path = run_path(load_experiment(config, overrides), overrides)
    assert path == Path("/scratch/small+data.views=_0_+seed=3")
    long = [f"method.key{i}=1" for i in range(20)]
    assert len(run_path(Experiment(name="x"), long).name) < 40


def test_differences_are_listed_leaf_by_leaf() -> None:
    old = {"seed": 0, "training": {"steps": 1, "batch": 8}}
    new = {"seed": 0, "training": {"steps": 2, "batch": 8}, "name": "x"}
    assert differences(old, new) == ["name: None → x", "training.steps: 1 → 2"]


@pytest.mark.parametrize(
    "path", sorted({*CONFIGS.rglob("*.yaml")} - {CONFIGS / "cohorts.yaml"}), ids=lambda p: p.stem
)
def test_every_shipped_experiment_is_valid(path: Path) -> None:
    load_members(path)
