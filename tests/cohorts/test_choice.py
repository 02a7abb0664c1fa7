"""One rule, and what it says of each series."""

from __future__ import annotations

import itertools
from pathlib import Path

from xr2ct.cohorts.catalogue import Rule
from xr2ct.cohorts.choice import Line, choose, eligible_by_header, none_taken, radiograph_lines
from xr2ct.cohorts.facts import Facts
from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import Source


def series(uid: str, *, patient="P", study="S", derived=False, flaw="", kind="dicom", **facts) -> Source:
    values = {"thickness_mm": 1.0, "slices": 300, "lung_coverage": 0.97, "kernel": "B30f", **facts}
    refusal = Refusal(patient, uid, flaw, "a.dcm") if flaw else None
    return Source(patient, study, uid, kind, (Path(uid),), derived, Facts(**values), flaw=refusal)


def told(*sources: Source, **rule) -> list[tuple[str, str, str]]:
    return [(line.source.series, line.take, line.reason) for line in choose(sources, Rule(**rule))]


def test_why_a_series_is_not_taken():
    cases = {
        "5.0 mm slices, at most 3.0 taken": ({"thickness_mm": 5.0}, {"thickness_mm": (0, 3)}),
        "0.5 mm slices, at least 1.0 taken": ({"thickness_mm": 0.5}, {"thickness_mm": (1, 3)}),
        "8.0 mm slices, at most 5.0 taken": ({"thickness_mm": None, "spacing_mm": (8.0, 1, 1)}, {}),
        "12 slices, at least 16 taken": ({"slices": 12}, {}),
        "contrast, the rule takes none": ({"contrast": True}, {"contrast": "without"}),
        "contrast not known, the rule takes none": ({"contrast": None}, {"contrast": "without"}),
        "no contrast, the rule takes only scans with it": ({"contrast": False}, {"contrast": "with"}),
        "kernel B70f not among B[1-4].f": ({"kernel": "B70f"}, {"kernels": ("B[1-4].f",)}),
        "kernel not given not among B30": ({"kernel": ""}, {"kernels": ("B30",)}),
        "lungs cut: coverage 0.42, at least 0.75": ({"lung_coverage": 0.42}, {}),
        "lung coverage not known": ({"lung_coverage": None}, {}),
        "gantry tilt of 12.0°": ({"flaw": "gantry tilt of 12.0°"}, {}),
    }
    for reason, (own, rule) in cases.items():
        assert told(series("1", **own), **rule) == [("1", "no", reason)]
    assert choose([series("1", flaw="missing slices")], Rule())[0].where == "a.dcm"
    assert told(series("1"))[0][1] == "yes"


def test_what_headers_do_not_say_is_not_held_against_a_volume_file():
    bare = series("1", kind="nifti", thickness_mm=None, slices=0, kernel="")
    assert told(bare) == [("1", "yes", "the only one that the rule takes")]
    cube = series("1", kind="x2ct", thickness_mm=None, spacing_mm=(10.0, 10.0, 10.0))
    assert told(cube) == [("1", "yes", "the only one that the rule takes")]


def test_lungs_are_looked_at_only_where_nothing_else_speaks_against_a_series():
    rule = Rule(thickness_mm=(0, 3))
    assert eligible_by_header(series("1", lung_coverage=None), rule)
    assert not eligible_by_header(series("1", thickness_mm=5.0), rule)
    assert not eligible_by_header(series("1", flaw="missing slices"), rule)


def test_the_first_difference_decides_and_is_told():
    thin = series("1", thickness_mm=1.0, kernel="B70f", slices=400)
    thick = series("2", thickness_mm=2.5, kernel="B30f", slices=160)
    reformat = series("3", thickness_mm=1.0, derived=True, slices=500)
    assert told(reformat, thick, thin, prefer=("acquired", "thin", "slices")) == [
        ("1", "yes", "first of 3 that the rule takes: thinner slices (1.0 mm, 2.5 mm)"),
        ("2", "spare", "another series is preferred: thinner slices (1.0 mm, 2.5 mm)"),
        ("3", "spare", "another series is preferred: acquired, not reformatted"),
    ]
    assert told(thin, thick, prefer=("soft",))[0] == (
        "2",
        "yes",
        "first of 2 that the rule takes: softer kernel (B30f, B70f)",
    )
    assert told(thin, thick, prefer=("sharp",))[0][0] == "1"
    early, late = series("9", date="20200101"), series("1", date="20210101")
    assert told(late, early, series("0", date=""), prefer=("early",))[0][0] == "9"
    with_, without, unknown = (series(str(n), contrast=c) for n, c in enumerate([True, False, None]))
    assert [t[0] for t in told(with_, without, unknown, prefer=("contrast",))] == ["0", "2", "1"]
    assert [t[0] for t in told(with_, without, unknown, prefer=("no-contrast",))] == ["1", "2", "0"]


def test_a_hundredth_of_coverage_does_not_beat_the_other_criteria():
    whole, thinner = series("1", lung_coverage=0.98, slices=100), series("2", lung_coverage=0.97, slices=400)
    assert told(whole, thinner)[0][0] == "2"
    assert told(whole, series("2", lung_coverage=0.901, slices=400))[0][0] == "2"
    cut = series("3", lung_coverage=0.85, slices=900)
    lines = told(whole, thinner, cut)
    assert [line[0] for line in lines] == ["2", "1", "3"]
    assert lines[2][2] == "another series is preferred: more of the lungs (coverage 0.97, 0.85)"


def test_the_order_of_the_source_does_not_matter():
    sources = [series(uid) for uid in "312"] + [series("4", patient="A"), series("5", slices=3)]
    first = told(*sources)
    assert [(uid, take) for uid, take, _ in first] == [
        ("4", "yes"),
        ("1", "yes"),
        ("2", "spare"),
        ("3", "spare"),
        ("5", "no"),
    ]
    assert first[1][2] == "first of 3 that the rule takes: alike, and its UID comes first"
    assert all(told(*order) == first for order in itertools.permutations(sources))


def test_one_scan_of_every_study():
    sources = [series("1", study="A"), series("2", study="A", slices=400), series("3", study="B")]
    assert [t[:2] for t in told(*sources, scans="study")] == [("2", "yes"), ("1", "spare"), ("3", "yes")]
    assert [t[:2] for t in told(*sources)] == [("2", "yes"), ("1", "spare"), ("3", "spare")]


def test_a_patient_without_a_scan_is_refused_with_every_reason():
    sources = [series("1", slices=4), series("2", thickness_mm=8.0), series("3", patient="Q", flaw="tilted")]
    assert list(none_taken(choose([*sources, series("4", patient="R")], Rule()))) == [
        Refusal(
            "P",
            "",
            "none of 2 series is taken: 4 slices, at least 16 taken; 8.0 mm slices, at most 5.0 taken",
        ),
        Refusal("Q", "3", "tilted", "a.dcm"),
    ]


def test_radiographs_go_with_their_patients_ct():
    lines = choose([series("1"), series("2", patient="Q", slices=1)], Rule())
    pictures = [series("8", kind="radiograph"), series("9", patient="Q", kind="radiograph")]
    assert [(line.source.series, line.take) for line in radiograph_lines(pictures, lines)] == [
        ("8", "yes"),
        ("9", "no"),
    ]
    assert all(isinstance(line, Line) for line in lines)
