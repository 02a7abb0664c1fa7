"""Configuration: inherited, overridden, validated whole, written out and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr2ct.config import Experiment, differences, dump, load_experiment, load_members, run_path
from xr2ct.errors import UserError


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
        ("coarse={run: r, size: 16, stp: 3}", "unknown key 'coarse.stp': did you mean 'step'"),
        ("evaluation.ways=[{refin: 3}]", "unknown key 'evaluation.ways.0.refin': did you mean 'refine'"),
        ("training.steps=many", "training.steps: .*integer.*'many'"),
        ("training.zero_stage=4", "training.zero_stage: .*3"),
        ("data.views=[]", "data.views: expected at least one view"),
        ("data.views=[0, 360]", "data.views: .*each angle once"),
        ("data.cohort=lidc", "did you mean 'lidc-idri'"),
        ("training.warmup_steps=10", r"warmup_steps \(10\) must be below training.steps \(10\)"),
        ("data={window: 32, scaling: minmax}", "data: window: needs scaling: window, got minmax"),
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


STUDY = """\
base: scales.yaml
name: study
training: {steps: 50, warmup_steps: 2}
variants:
  system:
    ours: {label: Ours, mapper: {name: swin-unetr, feature_size: 24}}
    theirs: {base: theirs.yaml}
sweep: {system: [ours, theirs], seed: [0, 1, 2]}
"""
THEIRS = """\
base: scales.yaml
name: theirs
label: Theirs
exhibits: [cohorts]
mapper: {name: unet}
training: {steps: 90, warmup_steps: 0}
variants: {scale: {small: {mapper: {name: unet, width: 4}}}}
sweep: {training.batch: [2, 4]}
"""
SCALES = """\
variants:
  scale:
    paper: {}
    small: {data: {size: 32}, training: {steps: 5}, sweep: {seed: [0, 1]}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for name, text in (("study", STUDY), ("theirs", THEIRS), ("scales", SCALES)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path / "study.yaml"


def test_a_variant_is_a_named_set_of_keys_and_the_first_is_the_default(study: Path) -> None:
    ours = load_experiment(study, ["seed=0", "system=ours"])
    assert (ours.label, ours.training.steps, ours.variants) == (
        "Ours", 50, {"system": "ours", "scale": "paper"},
    )  # fmt: skip


def test_a_set_inherits_all_but_what_names_an_experiment(study: Path) -> None:
    theirs = load_experiment(study, ["seed=0", "system=theirs", "training.batch=4"])
    assert (theirs.name, theirs.label, theirs.exhibits) == ("study", "Theirs", ())
    assert theirs.mapper == {"name": "unet"}  # not with the keys of the other one
    assert (theirs.training.steps, theirs.training.batch) == (90, 4)


def test_a_system_says_what_a_later_axis_means_for_it(study: Path) -> None:
    small = load_experiment(study, ["seed=0", "system=theirs", "scale=small", "training.steps=7"])
    assert small.mapper == {"name": "unet", "width": 4}
    assert (small.data.size, small.training.steps) == (32, 7)
    alone = load_experiment(study.with_name("theirs.yaml"), ["scale=small", "training.batch=2", "seed=0"])
    assert (alone.mapper, alone.data.size) == (small.mapper, 32)


def test_a_sweep_goes_over_variants_and_a_variant_may_cut_it(study: Path) -> None:
    chosen = [(e.variants["system"], e.seed) for e, _ in load_members(study)]
    assert chosen == [(s, seed) for s in ("ours", "theirs") for seed in (0, 1, 2)]
    small = load_members(study, ["scale=small"])
    assert len(small) == 4
    for experiment, overrides in small:
        assert load_experiment(study, overrides) == experiment


def test_what_was_chosen_is_recorded_and_reads_back(study: Path, tmp_path: Path) -> None:
    theirs = load_experiment(study, ["seed=0", "system=theirs", "scale=small"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump(theirs))
    assert load_experiment(copy) == theirs


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("system=their", "variants: system=their: did you mean 'theirs'"),
        ("sistem=ours", "unknown key 'sistem'"),
    ],
)
def test_a_wrong_variant_is_refused(study: Path, override: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_members(study, [override])


@pytest.mark.parametrize("text", ["variants: [a]\n", "variants: {a: {}}\n", "variants: {a: {b: 3}}\n"])
def test_variants_of_another_form_are_refused(config: Path, text: str) -> None:
    config.write_text(config.read_text() + text)
    with pytest.raises(UserError, match="variants: "):
        load_experiment(config)
