"""Planted outliers come first, each for what was done to it; sound chests are left alone, however few."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from conftest import Stores

from xr2ct.inspection.outliers import UNUSUAL, Verdict, judge, measure

SIZE = 32
CUBE_MM = 320.0


def filled(hu: np.ndarray) -> np.ndarray:
    """Tissue where the lungs were."""
    return np.where((hu < -700) & (hu > -900), 40, hu).astype(np.int16)


def cropped(hu: np.ndarray) -> np.ndarray:
    """The scan began at half the lungs' height."""
    hu = hu.copy()
    hu[: SIZE // 2 - 2] = -1024
    return hu


PLANTED: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "upside-down": (lambda hu: hu[::-1], "upside down?"),
    "on-its-face": (lambda hu: hu[:, ::-1], "back to front?"),
    "turned": (lambda hu: hu[::-1, ::-1], "turned over?"),
    "mirrored": (lambda hu: hu[:, :, ::-1], "left and right swapped?"),
    "unsigned": (lambda hu: hu + np.int16(1024), "away from the cohort's"),
    "offset": (lambda hu: hu + np.int16(120), "soft tissue at 1"),
    "filled": (filled, "lungs 0 % of the cube"),
    "cropped": (cropped, "lungs cut at 9"),
}


@pytest.fixture(scope="module")
def cohort(stores: Stores) -> dict[str, np.ndarray]:
    return {f"sound-{i:02d}": stores.chest(i, SIZE) for i in range(40)}


def verdicts(volumes: Mapping[str, np.ndarray], body_cut: float = 0.1) -> dict[str, Verdict]:
    found = judge([measure(hu, CUBE_MM, body_cut) for hu in volumes.values()])
    return dict(zip(volumes, found, strict=True))


def test_planted_outliers_come_first_and_say_why(cohort: dict[str, np.ndarray], stores: Stores) -> None:
    bad = {name: change(stores.chest(100 + i, SIZE)) for i, (name, (change, _)) in enumerate(PLANTED.items())}
    found = verdicts({**cohort, **bad})
    ranked = sorted(found, key=lambda name: -found[name].score)
    assert set(ranked[: len(PLANTED)]) == set(PLANTED)
    for name, (_, told) in PLANTED.items():
        assert any(told in reason for reason in found[name].reasons), (name, found[name])
    for name in cohort:
        assert found[name].score < UNUSUAL, (name, found[name])
        assert found[name].reasons == ()


def test_figures_are_those_of_the_volume(stores: Stores) -> None:
    hu = stores.chest(0, SIZE)
    alone = verdicts({"one": hu})["one"]
    assert alone.values["lungs"] == pytest.approx(((hu < -700) & (hu > -900)).mean(), rel=0.05)
    assert alone.values["lung_hu"] == pytest.approx(-830, abs=5)
    assert 20 < alone.values["tissue"] < 60
    assert alone.values["lungs_cut"] < 0.1
    assert alone.values["body_cut"] == 0.1
    assert verdicts({"half": cropped(hu)})["half"].values["lungs_cut"] > 0.9


@pytest.mark.parametrize("many", [1, 2, 3, 7])
def test_a_handful_of_cases_makes_no_outliers(cohort: dict[str, np.ndarray], many: int) -> None:
    for verdict in verdicts(dict(list(cohort.items())[:many])).values():
        assert np.isfinite(verdict.score)
        assert verdict.score < UNUSUAL


def test_one_upside_down_among_a_handful(cohort: dict[str, np.ndarray]) -> None:
    few = dict(list(cohort.items())[:4])
    found = verdicts({**few, "wrong": few["sound-00"][::-1]})
    assert found["wrong"].reasons[0].startswith("upside down?")
    assert [name for name in found if found[name].reasons] == ["wrong"]


def test_cases_all_alike_and_volumes_of_nothing(cohort: dict[str, np.ndarray]) -> None:
    alike = verdicts({str(i): cohort["sound-00"] for i in range(10)})
    assert {verdict.score for verdict in alike.values()} == {0.0}
    air = np.full((SIZE,) * 3, -1024, np.int16)
    found = verdicts({**cohort, "air": air}, body_cut=float("nan"))
    assert max(found, key=lambda name: found[name].score) == "air"
    assert np.isnan(found["air"].values["tissue"])
    assert judge([]) == []
