"""A few hundred of the mutants of `python -m tests.fuzz`, and that a wrong volume would be noticed."""

from __future__ import annotations

import base
import isolated
import mutants
import numpy as np
import pytest
from declared import Change, judge

from xr2ct.cohorts.volume import NativeVolume


@pytest.mark.slow
def test_no_mutant_is_taken_for_another_volume_or_breaks_the_reader():
    numbers = range(5 * len(mutants.NAMES))
    found = list(isolated.run_all((mutants.Mutant(1, n) for n in numbers), workers=2))
    assert len(found) == len(numbers)
    assert [(m.number, v.mutation, v.detail) for m, v in found if v.result == "VIOLATION"] == []
    assert {v.result for _, v in found} == {"refused", "equal", "as declared"}
    assert max(v.peak_mib for _, v in found) < 1024


@pytest.mark.parametrize("kind", [*base.SERIES, *base.VOLUMES])
def test_every_base_is_taken_as_it_is(tmp_path, kind):
    (base.write_series if kind in base.SERIES else base.write_volume)(tmp_path, kind)
    assert mutants._read(tmp_path, Change()) == ("equal", "")


@pytest.mark.parametrize("fault", ["value", "order", "mirror", "short", "spacing", "turned"])
def test_a_wrong_volume_is_a_violation(fault):
    hu, spacing = base.base_volume(), base.SPACING
    if fault == "value":
        hu[3, 4, 5] += 1
    elif fault == "order":
        hu[[3, 4]] = hu[[4, 3]]
    elif fault == "mirror":
        hu = hu[:, :, ::-1]
    elif fault == "short":
        hu = hu[1:]
    elif fault == "spacing":
        spacing = (3.7, 1.3, 1.3)
    else:
        hu = np.ascontiguousarray(hu.transpose(0, 2, 1))
    native = NativeVolume(hu, spacing, {})
    assert judge(native, Change())[0] == "VIOLATION"
    assert judge(native, Change(pixels=frozenset({7}), gone=frozenset({19})))[0] == "VIOLATION"


def test_what_a_mutation_declares_is_no_violation():
    hu = base.base_volume()
    hu[3] = 0
    assert judge(NativeVolume(hu, base.SPACING, {}), Change(pixels=frozenset({3})))[0] == "as declared"
    shorter = NativeVolume(base.base_volume()[:-2], base.SPACING, {})
    assert judge(shorter, Change(gone=frozenset({18, 19})))[0] == "as declared"
    assert judge(shorter, Change(gone=frozenset({19})))[0] == "VIOLATION"
