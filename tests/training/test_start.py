"""What is refused before anything heavy, and what a run may be started again with."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from xr2ct.config import Experiment, load_experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.pairs import Stores, find_pairs
from xr2ct.run import Run
from xr2ct.store import Store, layout
from xr2ct.training import checkpoints, start
from xr2ct.training.distributed import Ranks
from xr2ct.training.fence import Fence

ONE = Ranks(0, 1, 0, torch.device("cpu"))
TWO = Ranks(0, 2, 0, torch.device("cpu"))


@pytest.fixture
def experiment(trainer) -> Experiment:  # type: ignore[no-untyped-def]
    return load_experiment(trainer.config(mapper={"name": "swin-unetr"}))


def changed(experiment: Experiment, section: str, **keys: object) -> Experiment:
    part = getattr(experiment, section).model_copy(update=keys)
    return experiment.model_copy(update={section: part})


def begun(experiment: Experiment, folder: Path) -> Run:
    """A run with a checkpoint, as one rank leaves it."""
    run = Run(folder / "run")
    store, _ = start.open_training_data(experiment)
    resolved = start.resolve(run, experiment, store, ONE, "fp32")
    fence = Fence(run, 1)
    run.path.mkdir()
    start.write_config(run, experiment.model_copy(update={"resolved": resolved}), fence)
    checkpoints.begin(run, 0, fence)
    checkpoints.commit(run, 0, fence, time.monotonic())
    return run


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"cohort": "lctsc"}, r"lctsc\.zarr: not there \(in data\.stores: lidc-idri\.zarr\)"),
        ({"size": 32}, "32; valid: 16"),
        ({"geometry": "chest-1800"}, "'chest-1800'; valid: x2ct"),
        ({"views": (45.0,)}, "45°, only at 0°, 90°, 180°, 270°"),
        ({"train_cases": 6}, "5 cases in the training split, expected 6"),
    ],
)
def test_data_that_is_not_there(experiment: Experiment, keys: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        start.open_training_data(changed(experiment, "data", **keys))


def test_fewer_to_learn_from_leave_who_is_tested_as_it_is(experiment: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "stores" / "lidc-idri.zarr"
    shutil.copytree(experiment.data.stores / path.name, path)
    group = json.loads((path / "zarr.json").read_text())
    for row, split in zip(
        group["attributes"]["cases"], ("train", "train", "train", "val", "test"), strict=True
    ):
        row["split"] = split
    # A patient with two scans, of which a smaller set may have one.
    group["attributes"]["cases"][1]["patient"] = group["attributes"]["cases"][0]["patient"]
    (path / "zarr.json").write_text(json.dumps(group))
    sets = []
    for number in (1, 2, None):
        few = changed(experiment, "data", stores=path.parent, train_cases=number)
        store, cases = start.open_training_data(few)
        sets.append({case.id for case in cases})
        tested = {case.patient for split in ("val", "test") for case in store.split(split)}
        assert len(tested) == 2 and tested.isdisjoint(case.patient for case in cases)
        pairs = find_pairs(few, ["lidc-idri"], {}, Stores())
        assert [(p.split, [c.id for c in p.cases]) for p in pairs] == [
            ("val", ["case3"]),
            ("test", ["case4"]),
        ]
    assert sets[0] < sets[1] < sets[2] == {"case0", "case1", "case2"}


def test_first_of_a_seeded_order(experiment: Experiment, stores: Path) -> None:
    store = Store.open(stores / "lidc-idri.zarr")
    three = start.training_cases(changed(experiment, "data", train_cases=3), store)
    two = start.training_cases(changed(experiment, "data", train_cases=2), store)
    other = start.training_cases(
        changed(experiment, "data", train_cases=3).model_copy(update={"seed": 1}), store
    )
    assert len({c.id for c in three}) == 3
    assert two == three[:2]
    assert other != three


def test_components_are_completed_and_checked(experiment: Experiment) -> None:
    complete = start.completed(experiment)
    assert complete.mapper["feature_size"] == 48
    assert complete.method["blur"] == 0.05
    assert start.completed(complete) == complete
    with pytest.raises(UserError, match=r"did you mean 'feature_size'"):
        start.completed(experiment.model_copy(update={"mapper": {"name": "swin-unetr", "feature_sise": 12}}))
    with pytest.raises(UserError, match=r"did you mean 'neural-ot'"):
        start.completed(experiment.model_copy(update={"method": {"name": "neural-to"}}))


def test_other_values_are_refused_with_the_difference(experiment: Experiment, tmp_path: Path) -> None:
    run = begun(experiment, tmp_path)
    start.refuse_other_values(run, experiment)
    other = changed(changed(experiment, "training", batch=4), "optimizer", eps=1e-8)
    with pytest.raises(UserError) as refusal:
        start.refuse_other_values(run, other)
    lines = str(refusal.value).splitlines()[1:]
    assert [line.strip() for line in lines] == ["optimizer.eps: 0.001 → 1e-08", "training.batch: 2 → 4"]


def test_values_that_change_no_loss_are_free(experiment: Experiment, tmp_path: Path) -> None:
    run = begun(experiment, tmp_path)
    other = changed(experiment, "training", keep_engines=1, checkpoint_every=1)
    other = changed(changed(other, "tracking", uri="http://tracker"), "evaluation", batch=1)
    other = changed(other, "data", stores=Path("elsewhere")).model_copy(update={"run_root": Path("there")})
    start.refuse_other_values(run, other)


def test_until_something_is_saved_any_value_may_change(experiment: Experiment, tmp_path: Path) -> None:
    run = begun(experiment, tmp_path)
    shutil.rmtree(run.path / "checkpoints")
    start.refuse_other_values(run, changed(experiment, "training", batch=4))
    assert start.earlier_resolution(run, experiment, TWO) is None


def test_another_store_is_refused(
    experiment: Experiment, tmp_path: Path, make_store: Callable[..., Store]
) -> None:
    run = begun(experiment, tmp_path)
    other = make_store(16, seed=1).path.parent
    with pytest.raises(UserError, match=r"store of lidc-idri has changed since the start: \w{64} → \w{64}"):
        start.earlier_resolution(run, changed(experiment, "data", stores=other), ONE)


def test_a_moved_store_is_not_another(experiment: Experiment, tmp_path: Path, stores: Path) -> None:
    run = begun(experiment, tmp_path)
    shutil.copytree(stores, tmp_path / "moved")
    assert start.earlier_resolution(run, changed(experiment, "data", stores=tmp_path / "moved"), ONE)


def test_excluded_cases_are_not_trained_on(experiment: Experiment, tmp_path: Path, stores: Path) -> None:
    shutil.copytree(stores, tmp_path / "stores")
    experiment = changed(experiment, "data", stores=tmp_path / "stores")
    store = tmp_path / "stores" / "lidc-idri.zarr"
    run = begun(experiment, tmp_path)
    layout.exclude_file(store).write_text("case,reason\ncase3,upside down\n")
    _, cases = start.open_training_data(experiment)
    assert [case.id for case in cases] == ["case0", "case1", "case2", "case4"]
    with pytest.raises(
        UserError, match=r"changed since the start: .*; its exclude\.csv now leaves out case3; "
    ):
        start.earlier_resolution(run, experiment, ONE)
    shutil.rmtree(run.path)
    run = begun(experiment, tmp_path)
    assert start.earlier_resolution(run, experiment, ONE)
    layout.exclude_file(store).unlink()
    with pytest.raises(UserError, match=r"its exclude\.csv no longer leaves out case3; start a new run"):
        start.earlier_resolution(run, experiment, ONE)


def test_no_training_case_left(
    experiment: Experiment, tmp_path: Path, make_store: Callable[..., Store]
) -> None:
    store = make_store(16, folder=tmp_path)
    root = json.loads((store.path / "zarr.json").read_text())
    root["attributes"]["cases"][4]["split"] = "test"
    (store.path / "zarr.json").write_text(json.dumps(root))
    rows = "".join(f"case{row},blurred\n" for row in range(4))
    layout.exclude_file(store.path).write_text("case,reason\n" + rows)
    told = r"0 cases in the training split, expected some \(4 cases of the store are excluded"
    with pytest.raises(UserError, match=told):
        start.open_training_data(changed(experiment, "data", stores=tmp_path))


def test_other_versions_warn(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = begun(experiment, tmp_path)
    now = start.provenance.versions()
    monkeypatch.setattr(start.provenance, "versions", lambda: {**now, "torch": "1.0"})
    assert start.earlier_resolution(run, experiment, ONE)
    assert f"torch: {now['torch']} → 1.0" in caplog.text


def test_another_number_of_ranks(
    experiment: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = begun(experiment, tmp_path)
    assert start.earlier_resolution(run, experiment, TWO)
    assert "started on 1 ranks, now 2: losses go on alike up to rounding" in caplog.text
    with pytest.raises(UserError, match="zero_stage 2 keep the number"):
        start.earlier_resolution(run, changed(experiment, "training", zero_stage=2), TWO)


def test_no_whole_checkpoint_is_for_the_user_to_decide(experiment: Experiment, tmp_path: Path) -> None:
    run = begun(experiment, tmp_path)
    (run.checkpoint(0) / "COMPLETE").write_text("")
    with pytest.raises(WorkFailed, match=r"(?s)delete the run.*step-000000: COMPLETE cannot be read"):
        start.checkpoint_to_resume(run, Fence(run, 2))
    assert run.steps() == [0]


def test_nobody_to_learn_from_is_tested_on(experiment: Experiment, tmp_path: Path) -> None:
    learnt = experiment.data.stores / "lidc-idri.zarr"
    shutil.copytree(learnt, tmp_path / learnt.name)
    tested = tmp_path / "lctsc.zarr"
    shutil.copytree(learnt, tested)
    text = (tested / "zarr.json").read_text().replace('"train"', '"test"').replace("lidc-idri", "lctsc")
    (tested / "zarr.json").write_text(text)
    both = changed(experiment, "data", stores=tmp_path)
    with pytest.raises(UserError, match=r"the same patient: case case0 .* \(5 such cases in all\)"):
        start.open_training_data(both)
    start.open_training_data(changed(both, "evaluation", cohorts=("lidc-idri", "anti-pd-1")))
    (tested / "zarr.json").write_text(
        "{"
    )  # a store to test on that cannot be opened keeps no one from training
    start.open_training_data(both)
