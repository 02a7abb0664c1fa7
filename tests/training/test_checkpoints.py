"""A checkpoint's folder: whole or not there, and checked before it is used."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from xr2ct.run import Run, is_complete
from xr2ct.training import checkpoints
from xr2ct.training.fence import Fence


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def fence(run: Run) -> Fence:
    return Fence(run, 1)


def write(run: Run, step: int) -> Path:
    partial = checkpoints.begin(run, step, fence(run))
    (partial / "mapper.safetensors").write_bytes(bytes(range(256)) * step)
    (partial / "engines" / "mapper").mkdir()
    (partial / "engines" / "mapper" / "state.pt").write_bytes(b"moments" * 100)
    return checkpoints.commit(run, step, fence(run), time.monotonic())


def test_nothing_is_seen_before_it_is_whole(run: Run) -> None:
    partial = checkpoints.begin(run, 5, fence(run))
    (partial / "mapper.safetensors").write_bytes(b"half")
    assert run.steps() == []
    assert not list((run.path / "checkpoints").glob("step-*"))
    checkpoints.commit(run, 5, fence(run), time.monotonic())
    assert run.steps() == [5]
    assert is_complete(run.checkpoint(5))
    assert not partial.exists()


def test_leftovers_go(run: Run) -> None:
    write(run, 1)
    checkpoints.begin(run, 2, fence(run))
    checkpoints.remove_leftovers(run, Fence(run, 2))
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-000001"]


def test_engines_of_the_newest_alone(run: Run) -> None:
    for step in (0, 3, 6):
        write(run, step)
        checkpoints.keep_newest_engines(run, 2, fence(run))
    assert [s for s in run.steps() if (run.checkpoint(s) / "engines").exists()] == [3, 6]
    assert run.steps() == [0, 3, 6]
    assert checkpoints.newest_whole(run) == (6, {})


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda c: flip_a_bit(c / "engines/mapper/state.pt"), "engines/mapper/state.pt: differs"),
        (lambda c: flip_a_bit(c / "mapper.safetensors"), "mapper.safetensors: differs"),
        (lambda c: (c / "mapper.safetensors").write_bytes(b"x"), "mapper.safetensors: 1 bytes, 1536 were"),
        (lambda c: (c / "engines/mapper/state.pt").unlink(), "engines/mapper/state.pt: No such file"),
        (lambda c: (c / "COMPLETE").write_text("{"), "COMPLETE cannot be read"),
    ],
)
def test_the_newest_whole_one_and_why_not_a_newer(run: Run, harm, told: str) -> None:  # type: ignore[no-untyped-def]
    write(run, 3)
    write(run, 6)
    harm(run.checkpoint(6))
    step, passed_over = checkpoints.newest_whole(run)
    assert step == 3
    assert told in passed_over[6]


def test_a_step_that_is_there_is_not_replaced(run: Run) -> None:
    """It may be a successor's."""
    before = (write(run, 3) / "COMPLETE").read_bytes()
    with pytest.raises(OSError, match="not empty"):
        write(run, 3)
    assert (run.checkpoint(3) / "COMPLETE").read_bytes() == before
    checkpoints.verify(run.checkpoint(3))


def test_set_aside_is_out_of_sight_and_kept(run: Run) -> None:
    write(run, 3)
    checkpoints.set_aside(run, 3)
    assert run.steps() == []
    checkpoints.remove_leftovers(run, Fence(run, 2))
    assert (run.path / "checkpoints" / ".damaged-step-000003" / "mapper.safetensors").exists()
