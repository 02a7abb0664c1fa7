"""That the sweep's benchmark compares the same work: in small, as it runs on a GPU but for the device."""

from __future__ import annotations

from tests.benchmarks import sweep


def test_a_sweep_leaves_the_files_of_separate_evaluations() -> None:
    """`measure` refuses to go on where they differ."""
    told = sweep.measure(
        sweep.in_this_process, "cpu", {"name": "unet", "channels": [4, 8]}, (500, 1000), size=16, pixels=32
    )
    assert (len(told.ours), len(told.peer)) == (1, 1)
    assert told.detail["checkpoints"] == 2
