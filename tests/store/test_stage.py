"""A node's own copy of a store: whole or not at all, once a node, whatever happens in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xr2ct.errors import Stopped, UserError, WorkFailed
from xr2ct.projection.geometry import Geometry
from xr2ct.store import Store, StoreError, layout, stage, write
from xr2ct.store.stage import staged

XRAYS = layout.XraySet(Geometry("small", 541.0, 949.0, 500.0, pixels=24), (0.0, 90.0, 315.0))
OTHER = layout.XraySet(Geometry("other", 541.0, 949.0, 500.0, pixels=24), (0.0,))
CASES = 6

SLOW = """
import sys
import time
from pathlib import Path
from xr2ct.store import stage

copy = stage._copy

def slowly(store, target, chunk):
    copy(store, target, chunk)
    print(chunk.file, flush=True)
    time.sleep(float(sys.argv[3]))

stage._copy = slowly
stage._THREADS = 1
print("done", stage.staged(Path(sys.argv[1]), Path(sys.argv[2]), 16, "small"), flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six cases of which one is excluded, two sizes, two geometries."""
    store = tmp_path / "a shared disk" / "lidc-idri.zarr"
    write.lay_out(store, "lidc-idri", 320.0, CASES, [16, 32], [XRAYS, OTHER])
    random = np.random.default_rng(0)
    visible = []
    for row in range(CASES):
        checksums = {
            **{
                f"ct/{s}": write.write_chunk(
                    store, f"ct/{s}", row, random.integers(-1024, 3000, (s,) * 3, dtype=np.int16)
                )
                for s in (16, 32)
            },
            **{
                f"xray/{x.geometry.name}": write.write_chunk(
                    store,
                    f"xray/{x.geometry.name}",
                    row,
                    random.random((len(x.angles), 24, 24), dtype=np.float32),
                )
                for x in (XRAYS, OTHER)
            },
        }
        write.write_case(store, f"A-{row}", {"row": row, "checksums": checksums})
        split = "train" if row < 4 else "test"
        visible.append({"id": f"A-{row}", "patient": f"A-{row}", "split": split, "row": row})
    write.publish(store, visible, [16, 32], ["small", "other"])
    layout.exclude_file(store).write_text("case,reason\nA-1,metal\n")
    return store


def slowly(store: Path, to: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that copies one chunk after another, says each, and then where the copy is."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(store), str(to), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def chunks(copy: Path) -> dict[Path, int]:
    """Those that a copy has, and when each came."""
    return {p: p.stat().st_mtime_ns for p in copy.glob("*/*/c/*/0/0/0")}


def test_a_copy_is_the_store_that_training_reads(store: Path, tmp_path: Path) -> None:
    copy = staged(store, tmp_path / "node", 16, "small")
    assert copy.is_relative_to(tmp_path / "node")
    ours, theirs = Store.open(copy), Store.open(store)
    assert ours.checksum(16, "small") == theirs.checksum(16, "small")
    assert ours.excluded == theirs.excluded == {"A-1": "metal"}
    assert [c.id for c in ours.cases] == [c.id for c in theirs.cases]
    for a, b in zip(ours.cases, theirs.cases, strict=True):
        assert np.array_equal(ours.volume(a, 16), theirs.volume(b, 16))
        wanted = (315.0, 0.0)
        assert np.array_equal(ours.xray(a, "small", wanted), theirs.xray(b, "small", wanted))
    with pytest.raises(UserError, match="no volumes of size 32"):
        ours.volume(ours.cases[0], 32)
    assert len(chunks(copy)) == 2 * 5, "chunks of an excluded case, or of other arrays, were copied"
    assert (copy / "COMPLETE").is_file()


def test_cases_alone_and_the_same_checksum(store: Path, tmp_path: Path) -> None:
    copy = staged(store, tmp_path / "node", 16, "small", ["A-0", "A-2"])
    opened = Store.open(copy)
    assert opened.checksum(16, "small") == Store.open(store).checksum(16, "small")
    assert len(chunks(copy)) == 4
    opened.volume(opened.cases[0], 16)
    with pytest.raises(StoreError, match="A-3"):
        opened.volume(opened.cases[2], 16)
    assert staged(store, tmp_path / "node", 16, "small") != copy


def test_the_whole_chest_around_sub_volumes_is_copied_too(store: Path, tmp_path: Path) -> None:
    ours, theirs = Store.open(staged(store, tmp_path, 32, "small", context_side=16)), Store.open(store)
    assert ours.sizes == (16, 32)
    for size in ours.sizes:
        assert np.array_equal(ours.volume(ours.cases[0], size), theirs.volume(theirs.cases[0], size))
    with pytest.raises(UserError, match="no volumes of size 64"):
        staged(store, tmp_path, 32, "small", context_side=64)


def test_what_the_store_has_not_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no volumes of size 64"):
        staged(store, tmp_path, 64, "small")
    with pytest.raises(UserError, match="did you mean 'small'"):
        staged(store, tmp_path, 16, "smal")
    with pytest.raises(UserError, match="no case 'A-1'"):
        staged(store, tmp_path, 16, "small", ["A-0", "A-1"])


def test_a_second_call_copies_nothing_and_a_damaged_chunk_alone_comes_again(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = staged(store, tmp_path / "node", 16, "small")
    before = chunks(copy)
    assert staged(store, tmp_path / "node", 16, "small") == copy
    assert chunks(copy) == before
    victim, gone = layout.chunk_file(copy, "ct/16", 2), layout.chunk_file(copy, "xray/small", 3)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    gone.unlink()
    (copy / "cases" / "A-0.json").write_text("{}")
    assert staged(store, tmp_path / "node", 16, "small") == copy
    assert "case A-2: its chunk of ct/16 differs from its checksum" in caplog.text
    assert victim.read_bytes() == layout.chunk_file(store, "ct/16", 2).read_bytes()
    changed = {p for p, when in chunks(copy).items() if before[p] != when}
    assert changed == {victim, gone}
    assert Store.open(copy).checksum(16, "small") == Store.open(store).checksum(16, "small")


def test_a_store_that_changed_is_another_copy(store: Path, tmp_path: Path) -> None:
    first = staged(store, tmp_path / "node", 16, "small")
    layout.exclude_file(store).write_text("case,reason\n")
    second = staged(store, tmp_path / "node", 16, "small")
    assert second != first
    assert len(Store.open(second).cases) == CASES
    assert len(Store.open(first).cases) == CASES - 1


def test_damage_in_the_store_itself_names_the_case_and_leaves_no_copy(store: Path, tmp_path: Path) -> None:
    layout.chunk_file(store, "ct/16", 3).write_bytes(b"rubbish")
    with pytest.raises(StoreError, match=r"case A-3: its chunk of ct/16 differs from its checksum"):
        staged(store, tmp_path / "node", 16, "small")
    layout.chunk_file(store, "ct/16", 3).unlink()
    with pytest.raises(StoreError, match=r"case A-3: its chunk of ct/16 cannot be read"):
        staged(store, tmp_path / "node", 16, "small")
    (copy,) = (tmp_path / "node").glob("lidc-idri*")
    assert not (copy / "COMPLETE").exists()
    assert not (copy / "zarr.json").exists(), "half a copy could be taken for a store"


def test_killed_midway_it_goes_on_where_it_was(store: Path, tmp_path: Path) -> None:
    process = slowly(store, tmp_path / "node", 0.2)
    assert process.stdout
    for _ in range(3):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    (copy,) = (tmp_path / "node").glob("lidc-idri*")
    before = chunks(copy)
    assert 3 <= len(before) < 10
    assert not (copy / "COMPLETE").exists()
    torn = layout.chunk_file(copy, "ct/16", 5).with_name(".0.0123456789abcdef.partial")
    torn.parent.mkdir(parents=True, exist_ok=True)
    torn.write_bytes(b"half")
    assert staged(store, tmp_path / "node", 16, "small") == copy
    assert {p: w for p, w in chunks(copy).items() if p in before} == before, "a whole chunk was copied again"
    assert len(chunks(copy)) == 10
    assert not torn.exists()


def test_two_processes_make_one_copy(store: Path, tmp_path: Path) -> None:
    started = [slowly(store, tmp_path / "node", 0.02) for _ in range(2)]
    said = [process.communicate()[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sorted(len(lines) for lines in said) == [1, 11], "both copied"


def test_a_tick_that_raises_ends_it_and_the_next_call_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1
        if calls == 13:  # ten were looked at, and the third was copied
            raise Stopped("asked to stop")

    monkeypatch.setattr(stage, "_THREADS", 1)
    missing: list[int] = []
    space = stage._check_space
    monkeypatch.setattr(
        stage, "_check_space", lambda copy, needed: (missing.append(needed), space(copy, needed))
    )
    with pytest.raises(Stopped):
        staged(store, tmp_path / "node", 16, "small", tick=tick)
    assert calls == 13
    staged(store, tmp_path / "node", 16, "small")
    whole = 5 * (2 * 16**3 + 4 * 3 * 24**2)
    assert missing[0] == whole
    assert len(missing) == 1 or missing[1] <= whole - 3 * 4 * 3 * 24**2


def test_who_waits_for_another_can_be_stopped(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_TURN_S", 0.05)
    process = slowly(store, tmp_path / "node", 30)
    assert process.stdout
    assert process.stdout.readline()

    def tick() -> None:
        raise Stopped("asked to stop")

    try:
        with pytest.raises(Stopped):
            staged(store, tmp_path / "node", 16, "small", tick=tick)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A quarter of a megabyte; skips without root."""
    if os.geteuid() != 0:
        pytest.skip("a small disk needs root to be mounted")
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(store: Path, small_disk: Path) -> None:
    layout.exclude_file(store).write_text("case,reason\n")
    staged(store, small_disk, 16, "small", ["A-0"])
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 40_000))
    with pytest.raises(WorkFailed, match="local_disk") as refused:
        staged(store, small_disk, 16, "small")
    assert "0.09 MB more are needed and 0.0" in str(refused.value)
    assert "other copies beside it take 0.0" in str(refused.value)


def test_a_disk_that_fills_up_meanwhile_is_said_too(
    store: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_check_space", lambda copy, needed: copy.mkdir())
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 40_000))
    with pytest.raises(WorkFailed, match=r"more are needed and .* free on this node's disk"):
        staged(store, small_disk, 16, "small")
    assert not list(small_disk.rglob("*.partial"))


def test_a_folder_that_cannot_be_written_is_said(store: Path, tmp_path: Path) -> None:
    (tmp_path / "node").write_text("a file")
    with pytest.raises(WorkFailed, match="local_disk must name a folder"):
        staged(store, tmp_path / "node", 16, "small")


def test_only_one_arrays_metadata_is_shown(store: Path, tmp_path: Path) -> None:
    attributes = json.loads((staged(store, tmp_path, 32, "other") / "zarr.json").read_text())["attributes"]
    assert (attributes["sizes"], attributes["geometries"]) == ([32], ["other"])
