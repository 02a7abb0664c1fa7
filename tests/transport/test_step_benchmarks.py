"""The benchmarks of Sinkhorn and of steps, a GPU's too, at a size that a CPU does in a moment."""

from __future__ import annotations

from typing import Any

from tests.benchmarks import sinkhorn, step

TINY: dict[str, Any] = {
    "mapper": {"name": "unet", "channels": (4, 8)},
    "method": {
        "name": "neural-ot",
        "mapper_updates": 1,
        "potential": {"base_channels": 2, "max_channels": 4},
        "features": {"widths": (2, 2, 4, 4), "calibration_batches": 1},
    },
}
MADE: dict[str, Any] = {"device": "cpu", "size": 16, "rounds": 1, "sections": TINY, "batch": 2}


def test_both_sides_of_sinkhorn_give_the_same_gradient() -> None:
    found = sinkhorn.against_geomloss(2, rounds=1)
    assert len(found.ours) == len(found.peer) == 1
    assert found.detail["gradient_error"] < 1e-5


def test_share_of_an_inner_step() -> None:
    found = sinkhorn.share_of_an_inner_step(**MADE)
    assert found.ours[0] > 0 and found.peer[0] > 0


def test_use_of_matrix_units_is_in_operations_that_were_counted() -> None:
    found = step.matrix_units(side=64, **MADE)
    assert found.detail["flops"] > 1e6
    assert found.unit == "TFLOP/s" and found.ours[0] > 0


def test_volumes_a_second_of_an_outer_step() -> None:
    found = step.volumes_per_s(**MADE)
    assert found.ours[0] > 0 and list(found.peer) == [4.4]


def test_real_batches_and_one_that_is_kept() -> None:
    found = step.real_batches("cpu", TINY, steps=1, rounds=1)
    assert found.ours[0] > 0 and found.peer[0] > 0


def test_every_row_has_a_name_of_its_own_and_says_where_it_runs() -> None:
    rows = [*sinkhorn.ROWS, *step.ROWS]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.name.endswith("-cuda") == (row.device == "cuda")
    assert not next(row for row in rows if row.name == "paper-recipe-cuda").lower_is_better
