"""Makers are found by name, and an unknown one names the nearest."""

from __future__ import annotations

import pytest

from xr2ct.errors import UserError
from xr2ct.reporting.exhibit import exhibit, maker, makers
from xr2ct.reporting.report import DEFAULT


def test_every_exhibit_of_the_default_set_has_a_maker() -> None:
    assert set(DEFAULT) <= set(makers())


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(UserError, match=r"exhibits: unknown name 'paper-fig77': did you mean 'paper-fig7'\?"):
        maker("paper-fig77")


def test_a_name_has_one_maker() -> None:
    with pytest.raises(ValueError, match="two makers of the exhibit 'views'"):
        makers()
        exhibit("views")(lambda study: None)
