"""A configuration is reported on with those of its members that are there; the others are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_study import made_run

from xr2ct.cli import main
from xr2ct.errors import UserError
from xr2ct.reporting.chosen import choose_runs

CONFIG = """\
name: lifts
run_root: {work}/runs
exhibits: [cohorts, views, paper-fig7]
tracking: {{enabled: false}}
sweep: {{lift.kind: [repeat, rotate, backproject]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A sweep over three lifts: one trained and scored, one trained alone, one not there."""
    path = tmp_path / "lifts.yaml"
    path.write_text(CONFIG.format(work=tmp_path))
    scores = {("lidc-idri", "val"): {"v": 20.0}, ("lidc-idri", "test"): {"a": 20.0, "b": 21.0}}
    shown = {"exhibits": ["cohorts", "views", "paper-fig7"], "tracking": {"enabled": False}}
    made_run(tmp_path / "runs" / "lifts+lift.kind=repeat", scores, **shown)
    made_run(tmp_path / "runs" / "lifts+lift.kind=rotate", lift="rotate", **shown).best.unlink()
    return path


def test_members_that_are_not_there_are_named_on_the_page(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(config), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/index.html\n"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "lifts+lift.kind=rotate: no best checkpoint yet" in page
    assert "lifts+lift.kind=backproject: not trained yet" in page
    assert "paper-fig7: nothing to show in it" in page and '<section id="cohorts">' in page


def test_overrides_choose_members_on_either_side_of_the_options(config: Path, tmp_path: Path) -> None:
    chosen = choose_runs([str(config), "lift.kind=repeat"])
    assert [run.path.name for run in chosen.runs] == ["lifts+lift.kind=repeat"] and not chosen.absent
    out = tmp_path / "out"
    assert main(["report", str(config), "--out", str(out), "lift.kind=repeat"]) == 0
    assert "not trained yet" not in (out / "index.html").read_text()


def test_a_run_whose_folder_looks_like_an_override_is_a_run(config: Path) -> None:
    folder = config.parent / "runs" / "lifts+lift.kind=repeat"
    assert [run.path for run in choose_runs([str(folder), str(config)]).runs] == [folder]


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (
            ["{config}", "lift.kind=backproject"],
            "none of its runs can be reported on: .*backproject: not trained",
        ),
        (["{config}", "lift.kind=turn"], "lift.kind: "),
        (["lift.kind=repeat"], "neither a run nor an override of a CONFIG.yaml"),
        (["nowhere"], "nowhere: not a run"),
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_reported_on_is_named(config: Path, targets: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        choose_runs([target.format(config=config) for target in targets])


def test_an_exhibit_that_nobody_knows_is_refused_before_any_is_made(config: Path, tmp_path: Path) -> None:
    made_run(tmp_path / "other", {("lidc-idri", "test"): {"a": 20.0}}, exhibits=["cohort"])
    assert main(["report", str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
