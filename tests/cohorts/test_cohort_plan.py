"""From a folder to a plan, from a plan to PLAN.csv, and back after people and their programs had it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from xr2ct.cohorts import scan_coverage
from xr2ct.cohorts.plan import CohortPlan, plan_cohort, read_plan, scan_file, write_plan
from xr2ct.cohorts.plan_csv import COLUMNS
from xr2ct.cohorts.pseudonyms import Names
from xr2ct.cohorts.refused import Refusal
from xr2ct.errors import UserError

OPEN = Names(True)
SECRET = Names(False, "0123456789ab", b"a salt for tests")


@pytest.fixture(autouse=True)
def thick_cohorts(tmp_path_factory, monkeypatch):
    """Two cohorts whose rule takes the 10 mm slices of the tests' chest."""
    file = tmp_path_factory.mktemp("cohorts") / "own.yaml"
    rule = "rule: {thickness_mm: [0, 20], prefer: [acquired, thin, slices]"
    file.write_text(
        f"clinic: {{{rule}}}}}\nopen:\n  public: true\n  {rule}}}\nstudies: {{{rule}, scans: study}}}}\n"
    )
    monkeypatch.setenv("XR2CT_COHORTS", str(file))


@pytest.fixture
def tree(tmp_path, chest, write_series) -> Path:
    """Patient 0007 with two series and a localizer, patient Müller with one of too few slices."""
    root = tmp_path / "tree"

    def thinner(index, data):
        data.SliceThickness = 5

    def localizer(index, data):
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def foreign(index, data):
        data.SpecificCharacterSet = "ISO_IR 192"
        data.PatientID = "Müller, Eva"

    write_series(root / "x", chest, patient="0007", series="1.2.3")
    write_series(root / "y", chest, patient="0007", series="1.2.4", edit=thinner)
    write_series(
        root / "y",
        chest,
        patient="0007",
        series="1.2.5",
        edit=localizer,
        names=list("abcdefghijklmnopqrstuvwx"),
    )
    for path in write_series(root / "z", chest, series="1.2.6", edit=foreign)[10:]:
        path.unlink()
    return root


def planned(tree: Path, out: Path, cohort: str = "open", names: Names = OPEN) -> CohortPlan:
    plan = plan_cohort(tree, cohort, index=scan_file(out), workers=1)
    write_plan(plan, out, names)
    return plan


def rows(out: Path) -> list[dict[str, str]]:
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_series_is_a_line(tree, tmp_path):
    out = tmp_path / "PLAN.csv"
    plan = planned(tree, out)

    assert [tuple(row[c] for c in ("patient", "series", "take", "reason")) for row in rows(out)] == [
        ("0007", "1.2.4", "yes", "first of 2 that the rule takes: thinner slices (5.0 mm, 10.0 mm)"),
        ("0007", "1.2.3", "spare", "another series is preferred: thinner slices (5.0 mm, 10.0 mm)"),
        ("0007", "1.2.5", "no", "localizer (24 files)"),
        ("Müller, Eva", "1.2.6", "no", "10 slices, at least 16 taken"),
    ]
    assert tuple(rows(out)[0]) == COLUMNS
    assert {k: v for k, v in rows(out)[0].items() if k not in ("reason", "lung_coverage")} == {
        "patient": "0007",
        "study": "1.2.4.77",
        "series": "1.2.4",
        "modality": "CT",
        "kernel": "B30f",
        "contrast": "yes",
        "thickness_mm": "5",
        "spacing_mm": "10×6×5",
        "slices": "24",
        "take": "yes",
    }
    assert float(rows(out)[0]["lung_coverage"]) > 0.75
    assert rows(out)[3]["lung_coverage"] == ""
    assert plan.refusals == (Refusal("Müller, Eva", "1.2.6", "10 slices, at least 16 taken"),)
    assert plan.left_out == (Refusal("0007", "1.2.5", "localizer (24 files)"),)
    assert read_plan(out, "open", OPEN) == plan


def test_a_second_plan_looks_at_no_lung_again(tree, tmp_path, monkeypatch):
    first = planned(tree, tmp_path / "PLAN.csv")
    monkeypatch.setattr(scan_coverage, "look", None)
    assert planned(tree, tmp_path / "PLAN.csv") == first


def test_a_series_that_cannot_be_read_is_refused_with_its_own_reason(tree, tmp_path):
    for path in (tree / "x").iterdir():
        path.write_bytes(path.read_bytes()[:-500])
    plan = planned(tree, tmp_path / "PLAN.csv")
    assert [(x.source.series, x.take) for x in plan.lines[:2]] == [("1.2.4", "yes"), ("1.2.3", "no")]
    assert "pixels cannot be read" in plan.lines[1].reason
    assert plan.lines[1].where.endswith(".dcm")


def edit(out: Path, *pairs: tuple[str, str]) -> None:
    text = out.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    out.write_text(text, encoding="utf-8")


def test_takes_may_be_changed(tree, tmp_path):
    out = tmp_path / "PLAN.csv"
    planned(tree, out)
    edit(out, (",spare,", ",YES,"), (',yes,"first', ',  no ,"first'), (',no,"10 slices', ',yes,"10 slices'))
    plan = read_plan(out, "open", OPEN)
    assert [(x.source.series, x.take) for x in plan.lines] == [
        ("1.2.4", "no"),
        ("1.2.3", "yes"),
        ("1.2.6", "yes"),
    ]
    assert plan.lines[0].reason.startswith("changed by hand; planned was yes: first of 2")
    assert plan.refusals == ()
    with pytest.raises(UserError, match=r"PLAN\.csv: edited by hand \(line 2\)"):
        planned(tree, out)
    assert ',  no ,"first' in out.read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",spare,", ",perhaps,", r"line 3: unknown take 'perhaps': valid: no, spare, yes"),
        (",spare,", ",spar,", r"line 3: unknown take 'spar': did you mean 'spare'\?"),
        (",spare,", ",yes,", r"line 3: a second yes for one patient \(the first: line 2\)"),
        (",no,localizer", ",yes,localizer", r"line 4: take 'yes' where it can only be 'no': localizer"),
        ("1.2.3.77,1.2.3,", "1.2.9.77,1.2.9,", r"line 3: series '1.2.9' of '0007' is not of this plan"),
        ("1.2.3.77,1.2.3,", "1.2.4.77,1.2.4,", r"line 3: the series of line 2 again"),
        ("take", "taken", r"no column 'take'; expected patient, study, series"),
    ],
)
def test_bad_edits_are_told_with_their_line(tree, tmp_path, old, new, message):
    out = tmp_path / "PLAN.csv"
    planned(tree, out)
    edit(out, (old, new))
    with pytest.raises(UserError, match=message):
        read_plan(out, "open", OPEN)


def test_a_csv_as_a_spreadsheet_saves_it(tree, tmp_path):
    """Semicolons, a mark, other columns, rows in another order and empty ones, leading zeros gone."""
    out = tmp_path / "PLAN.csv"
    plan = planned(tree, out)
    lines = rows(out)
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        with out.open("w", encoding=encoding, newline="", errors="replace") as file:
            writer = csv.writer(file, delimiter="\t" if encoding == "utf-16" else ";")
            writer.writerow(["Take", "note", "series", "study", "patient"])
            for row in reversed(lines):
                patient = row["patient"].lstrip("0")
                writer.writerow([row["take"].upper(), "seen", row["series"], row["study"], patient])
            writer.writerow([""] * 5)
        assert read_plan(out, "open", OPEN) == plan


def test_a_line_that_was_removed_is_not_taken(tree, tmp_path):
    out = tmp_path / "PLAN.csv"
    planned(tree, out)
    kept = [line for line in out.read_text(encoding="utf-8").splitlines() if ",yes," not in line]
    out.write_text("\n".join(kept), encoding="utf-8")
    line = read_plan(out, "open", OPEN).lines[0]
    assert (line.source.series, line.take) == ("1.2.4", "no")
    assert line.reason.startswith("its line was removed by hand; planned was yes")


def test_a_private_plan_holds_no_identifier(tree, tmp_path):
    out = tmp_path / "PLAN.csv"
    plan = planned(tree, out, "clinic", SECRET)
    text = out.read_text(encoding="utf-8")
    for planted in ("0007", "Müller", "1.2.3", "1.2.4", "20200229", "ACC-4711", ".dcm", str(tree)):
        assert planted not in text
    assert rows(out)[0]["patient"].startswith("case-")
    assert scan_file(out).stat().st_mode & 0o777 == 0o600
    assert read_plan(out, "clinic", SECRET) == plan
    with pytest.raises(UserError, match="another salt"):
        read_plan(out, "clinic", Names(False, "ba9876543210", b"another salt for tests"))


def test_a_plan_needs_its_scan_and_its_cohort(tree, tmp_path):
    out = tmp_path / "PLAN.csv"
    planned(tree, out)
    with pytest.raises(UserError, match="a plan of open, asked for was lidc-idri"):
        read_plan(out, "lidc-idri", OPEN)
    with pytest.raises(UserError, match="no such plan"):
        read_plan(tmp_path / "nowhere.csv", "open", OPEN)
    scan_file(out).unlink()
    with pytest.raises(UserError, match=r"PLAN\.scan is not beside it"):
        read_plan(out, "open", OPEN)


def test_the_best_of_every_study(tree, tmp_path):
    out = tmp_path / "PLAN.csv"
    plan = planned(tree, out, "studies", SECRET)
    assert [(x.source.series, x.take) for x in plan.lines] == [
        ("1.2.3", "yes"),
        ("1.2.4", "yes"),
        ("1.2.6", "no"),
    ]
    assert read_plan(out, "studies", SECRET) == plan
