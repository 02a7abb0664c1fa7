"""Splits by patient: exact, seeded, the same in any order; lists checked line by line."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr2ct.cohorts.catalogue import cohort
from xr2ct.cohorts.draw_splits import draw, write_lists
from xr2ct.cohorts.names import COHORTS
from xr2ct.cohorts.splits import assign_splits, read_split_list, resolve_splits
from xr2ct.errors import UserError
from xr2ct.shipped import shipped


def _names(count: int) -> list[str]:
    return [f"LIDC-IDRI-{i:04d}" for i in range(1, count + 1)]


@pytest.mark.parametrize(
    ("patients", "fractions", "expected"),
    [
        (24, (0.8, 0.1, 0.1), (19, 3, 2)),
        (1010, (0.8, 0.1, 0.1), (808, 101, 101)),
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (2, (0.8, 0.1, 0.1), (2, 0, 0)),
        (5, (0.0, 0.0, 1.0), (0, 0, 5)),
        (1, (0.0, 0.0, 1.0), (0, 0, 1)),
        (7, (0.5, 0.5, 0.0), (4, 3, 0)),
        (0, (0.8, 0.1, 0.1), (0, 0, 0)),
    ],
)
def test_counts_are_exact(patients, fractions, expected):
    counts = Counter(assign_splits(_names(patients), 0, fractions).values())
    assert (counts["train"], counts["val"], counts["test"]) == expected


@settings(max_examples=50, deadline=None)
@given(st.permutations(_names(25)), st.integers(0, 5))
def test_order_and_repetition_do_not_matter(patients, seed):
    assert assign_splits([*patients, *patients[:4]], seed) == assign_splits(_names(25), seed)


def test_seeds_differ():
    assert len({tuple(assign_splits(_names(30), seed).values()) for seed in range(8)}) == 8


def test_another_patient_moves_at_most_one_across_each_border():
    for count in range(3, 120):
        before, after = (assign_splits(_names(n), 3) for n in (count, count + 1))
        assert sum(before[name] != after[name] for name in before) <= 2


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_wrong_fractions(fractions):
    with pytest.raises(UserError, match="split fractions"):
        assign_splits(_names(5), 0, fractions)


def test_a_list_is_read(tmp_path):
    path = tmp_path / "splits.csv"
    path.write_text(
        "\ufeffsplit,patient,note\r\ntrain, LIDC-IDRI-0001 ,first\r\ntest,ct-64,\r\ntest,ct-64,again\r\n"
    )
    assert read_split_list(path) == {"LIDC-IDRI-0001": "train", "ct-64": "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,split\na,train\nb,val\na,test\n", "line 4: its patient is in train above and in test here"),
        ("patient,split\na,valid\n", "line 2: unknown split 'valid': did you mean 'val'"),
        ("patient,split\n,train\n", "line 2: no patient"),
        ("a,train\nb,test\n", "expected a CSV with the header 'patient,split'"),
        ("", "expected a CSV with the header"),
    ],
)
def test_wrong_lists(tmp_path, text, message):
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_split_list(path)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="not readable as a split list"):
        read_split_list(tmp_path / "none.csv")


class TestNamedSplits:
    def test_lidc_is_near_the_papers_with_nobody_on_two_sides(self):
        listed = resolve_splits("lidc-idri")
        # Patients with two CT scans in the collection.
        twice = {f"LIDC-IDRI-{n:04d}" for n in (132, 151, 315, 332, 355, 365, 442, 484)}
        scans = Counter()
        for patient, split in listed.items():
            scans[split] += 2 if patient in twice else 1
        assert (len(listed), sum(scans.values())) == (1010, 1018)
        assert scans["test"] == 102
        assert scans["train"] + scans["val"] == 916
        assert listed["LIDC-IDRI-0442"] == "train"

    @pytest.mark.parametrize("name", COHORTS)
    def test_lists_are_what_the_function_draws(self, name):
        listed = resolve_splits(cohort(name).splits)
        assert listed == draw(name, list(listed))
        assert len(listed) == cohort(name).patients

    def test_lists_are_what_the_index_holds(self, tmp_path):
        pytest.importorskip("idc_index")
        write_lists(tmp_path)
        for name in COHORTS:
            assert (tmp_path / f"{name}.csv").read_bytes() == shipped(
                f"configs/splits/{name}.csv"
            ).read_bytes()

    def test_no_patient_is_in_two_cohorts(self):
        met = Counter(patient for name in COHORTS for patient in resolve_splits(name))
        assert max(met.values()) == 1

    def test_words_paths_and_names(self, tmp_path, monkeypatch):
        assert resolve_splits("seeded") == "seeded"
        assert resolve_splits("test") == "test"
        file = tmp_path / "lctsc"
        file.write_text("patient,split\nA,val\n")
        assert resolve_splits(file) == {"A": "val"}
        assert resolve_splits(str(file)) == {"A": "val"}
        file.rename(tmp_path / "mine.csv")
        monkeypatch.chdir(tmp_path)
        assert resolve_splits("mine.csv") == {"A": "val"}

    def test_unknown_names_tell_the_nearest(self):
        with pytest.raises(UserError, match="did you mean 'seeded'"):
            resolve_splits("seed")
        with pytest.raises(UserError, match="did you mean 'lidc-idri'"):
            resolve_splits("lidc")
