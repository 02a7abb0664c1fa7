"""The catalogue: the seven as published, a laboratory's own beside them, mistakes named."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr2ct.cohorts.catalogue import OWN, Rule, catalogue, cohort
from xr2ct.cohorts.names import COHORTS, check_cohort
from xr2ct.cohorts.splits import resolve_splits
from xr2ct.errors import UserError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes the file of a laboratory's own cohorts and names it to the program."""

    def write(text: str) -> Path:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        monkeypatch.setenv(OWN, str(path))
        return path

    return write


def test_the_seven_are_whole():
    assert tuple(catalogue()) == COHORTS
    for name, known in catalogue().items():
        assert known.public
        assert known.idc and known.collection and known.license and known.scans >= known.patients > 0
        assert known.doi.startswith("10.7937/")
        assert known.splits == name


def test_licences_that_forbid_commerce_are_known():
    assert {name for name, known in catalogue().items() if known.non_commercial} == {
        "midrc-ricord-1b",
        "nsclc-radiomics",
    }


def test_numbers_dois_and_licences_are_those_of_the_index():
    pytest.importorskip("idc_index")
    from xr2ct.cohorts.fetch import select

    for name, known in catalogue().items():
        selection = select(name, modalities=("CT",))
        assert selection.licenses == (known.license,)
        assert len(selection.patients) == known.patients
        assert len({series.study for series in selection.series}) == known.scans


def test_own_cohorts_are_private_seeded_and_valid_everywhere(own):
    own("hospital.a-1:\nlctsc:\n  rule: {contrast: with}\n")
    assert list(catalogue()) == [*COHORTS, "hospital.a-1"]
    assert (cohort("hospital.a-1").public, cohort("hospital.a-1").splits) == (False, "seeded")
    assert check_cohort("hospital.a-1") == "hospital.a-1"
    replaced = cohort("lctsc")
    assert replaced.doi == ""
    assert replaced.rule == Rule(contrast="with")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Ward 7: {}\n", "'Ward 7'"),
        ("../x: {}\n", "'../x'"),
        ("ward: {rule: {contrst: any}}\n", "did you mean 'contrast'"),
        ("ward: {rule: {prefer: [thinnest]}}\n", "rule.prefer.0"),
        ("ward: {rule: {thickness_mm: [5, 1]}}\n", "thickness"),
        ("ward: {rule: {kernels: ['(']}}\n", "regular expression"),
        ("ward: {idc: x}\n", "doi"),
        ("- ward\n", "expected cohorts by name"),
        ("ward: 7\n", "expected keys"),
    ],
)
def test_a_mistake_in_the_file_is_named(own, text, told):
    path = own(text)
    with pytest.raises(UserError) as error:
        catalogue()
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(UserError, match="did you mean 'lidc-idri'"):
        cohort("lidc")


def test_every_cohorts_splits_are_shipped():
    for known in catalogue().values():
        assert isinstance(resolve_splits(known.splits), dict)
