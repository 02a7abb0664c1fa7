from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xr2ct.config import Augmentation, Data
from xr2ct.errors import UserError
from xr2ct.loading.loader import Loader, sequential
from xr2ct.methods.base import Batch
from xr2ct.store import Store, StoreError, layout

CPU = torch.device("cpu")
DATA = Data(size=16)
MakeStore = Callable[..., Store]


def loader(store: Store, **changes: Any) -> Loader:
    told: dict[str, Any] = {
        "batch": 4,
        "accumulation": 1,
        "rank": 0,
        "world_size": 1,
        "seed": 5,
        "device": CPU,
    }
    told |= {"data": DATA, "augmentation": Augmentation()} | changes
    return Loader(store, store.cases, **told)


def take(count: int, store: Store, **changes: Any) -> list[Batch]:
    made = loader(store, **changes)
    batches = list(islice(made, count))
    made.close()
    return batches


def same(a: Batch, b: Batch) -> bool:
    return (
        (a.positions, a.cases) == (b.positions, b.cases)
        and torch.equal(a.ct, b.ct)
        and torch.equal(a.views, b.views)
    )


def joined(parts: list[Batch]) -> Batch:
    """The ranks' shares of one global batch, in the order of the ranks."""
    return Batch(
        torch.cat([p.ct for p in parts]),
        torch.cat([p.views for p in parts]),
        tuple(i for p in parts for i in p.positions),
        tuple(c for p in parts for c in p.cases),
    )


def test_batches_are_float32_contiguous_and_of_the_shapes_promised(store: Store) -> None:
    (batch,) = take(1, store)
    assert batch.ct.shape == (4, 1, 16, 16, 16)
    assert batch.views.shape == (4, 2, 24, 24)
    assert batch.positions == (0, 1, 2, 3)
    for tensor in (batch.ct, batch.views):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert tensor.device == CPU


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_ranks_sees_the_same_samples_to_the_bit(store: Store, world_size: int) -> None:
    alone = take(4, store)
    ranks = [take(4, store, world_size=world_size, rank=rank) for rank in range(world_size)]
    assert all(same(a, joined(list(parts))) for a, *parts in zip(alone, *ranks, strict=True))


def test_taken_up_anywhere_the_sequence_goes_on_to_the_bit(store: Store) -> None:
    whole = take(8, store)
    for first in (1, 5):
        later = take(8 - first, store, first_batch=first)
        assert all(same(a, b) for a, b in zip(whole[first:], later, strict=True))


def test_iterated_again_it_goes_on_where_it_stopped(store: Store) -> None:
    made = loader(store)
    positions = [next(iter(made)).positions[0] for _ in range(3)]
    made.close()
    assert positions == [0, 4, 8]


def test_batches_handed_out_stay_as_they_were(store: Store) -> None:
    made = loader(store)
    first = next(iter(made))
    kept = Batch(first.ct.clone(), first.views.clone(), first.positions, first.cases)
    for _ in islice(made, 6):
        pass
    made.close()
    del made
    assert same(first, kept)


def test_sequential_gives_each_case_once_in_order_and_a_short_last_batch(store: Store) -> None:
    batches = list(sequential(store, store.cases[:5], DATA, batch=2, device=CPU))
    assert [b.cases for b in batches] == [("case0", "case1"), ("case2", "case3"), ("case4",)]
    assert [b.positions for b in batches] == [(0, 1), (2, 3), (4,)]
    for batch in batches:
        for i, position in enumerate(batch.positions):
            hu = store.volume(store.cases[position], 16).astype(np.float64)
            np.testing.assert_allclose(batch.ct[i, 0], np.clip((hu + 1024) / 2500, 0, 1), atol=1e-7)
            views = store.xray(store.cases[position], "x2ct", (90.0, 0.0))
            np.testing.assert_allclose(batch.views[i], views / views.max((1, 2), keepdims=True), rtol=1e-6)


def test_views_that_pass_through_unchanged_are_the_batchs_own(store: Store) -> None:
    batches = list(sequential(store, store.cases, DATA, batch=1, device=CPU))
    for batch, case in zip(batches, store.cases, strict=True):
        views = store.xray(case, "x2ct", (90.0, 0.0))
        np.testing.assert_allclose(batch.views[0], views / views.max((1, 2), keepdims=True), rtol=1e-6)


def test_sequential_without_cases_is_empty(store: Store) -> None:
    assert list(sequential(store, [], DATA, batch=2, device=CPU)) == []


def test_xrays_may_be_divided_by_a_figure(store: Store) -> None:
    data = DATA.model_copy(update={"xray_scale": 4.0, "views": (270.0,)})
    (batch,) = sequential(store, store.cases[:1], data, batch=1, device=CPU)
    np.testing.assert_allclose(batch.views[0], store.xray(store.cases[0], "x2ct", (270.0,)) / 4, rtol=1e-6)


@pytest.mark.parametrize("array", ["ct/16", "xray/x2ct"])
@pytest.mark.parametrize("damage", ["altered", "missing"])
@pytest.mark.timeout(60)
def test_a_damaged_chunk_names_its_case_after_the_batches_before_it(
    make_store: MakeStore, array: str, damage: str
) -> None:
    store = make_store()
    chunk = layout.chunk_file(store.path, array, 4)
    content = bytearray(chunk.read_bytes())
    chunk.unlink()
    if damage == "altered":
        content[100] ^= 1
        chunk.write_bytes(content)
    batches = sequential(store, store.cases, DATA, batch=2, device=CPU)
    assert [next(batches).cases for _ in range(2)] == [("case0", "case1"), ("case2", "case3")]
    with pytest.raises(StoreError, match=f"case4.*{array}"):
        next(batches)
    assert list(batches) == []
    assert all_gone()


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("xr2ct-read")]


def dali_threads() -> int:
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum("DALI" in name for name in names)


def all_gone() -> bool:
    """No thread of a loader's is left, once the system has done away with those that ended."""
    until = time.monotonic() + 5
    while (left := bool(readers() or dali_threads())) and time.monotonic() < until:
        time.sleep(0.02)
    return not left


def test_close_leaves_no_thread_and_ends_the_sequence(store: Store) -> None:
    made = loader(store)
    next(iter(made))
    assert readers()
    assert dali_threads()
    made.close()
    made.close()
    assert all_gone()
    assert list(made) == []


def test_sequential_ends_its_threads_when_it_ends_and_when_it_is_dropped(store: Store) -> None:
    list(sequential(store, store.cases, DATA, batch=4, device=CPU))
    assert all_gone()
    batches: Iterator[Batch] | None = sequential(store, store.cases, DATA, batch=1, device=CPU)
    assert batches is not None
    next(batches)
    batches = None
    assert all_gone()


@pytest.mark.timeout(120)
def test_the_interpreter_ends_with_a_loader_left_open(store: Store) -> None:
    program = f"""
import torch
from xr2ct.config import Augmentation, Data
from xr2ct.loading.loader import Loader
from xr2ct.store import Store
store = Store.open({str(store.path)!r})
loader = Loader(store, store.cases, Data(size=16), Augmentation(), batch=2, accumulation=1, rank=0,
                world_size=1, seed=0, device=torch.device("cpu"))
print(next(iter(loader)).positions)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "(0, 1)", "")


def test_a_mirror_image_that_the_store_lacks_is_named_with_the_remedy(make_store: MakeStore) -> None:
    store = make_store(cases=1, angles=(0.0, 90.0))
    with pytest.raises(UserError) as told:
        loader(store)
    assert "no view at 270°" in str(told.value)
    assert "flip xray or none" in str(told.value)
    take(1, store, augmentation=Augmentation(flip="xray"))
    take(1, store, augmentation=Augmentation(flip="none"))
    take(1, store, augmentation=Augmentation(flip_probability=0))
    list(sequential(store, store.cases, DATA, batch=1, device=CPU))


def test_the_mirror_of_an_uneven_angle_is_found(make_store: MakeStore) -> None:
    store = make_store(cases=2, angles=(326.7, 33.3))
    assert -326.7 % 360 != 33.3
    take(2, store, data=DATA.model_copy(update={"views": (326.7,)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": (45.0,)}, "no view at 45°, only at 0°, 90°, 180°, 270°"),
        ({"size": 32}, "no volumes of data.size 32; valid: 16"),
        ({"geometry": "x2cd"}, "no X-rays of data.geometry 'x2cd'; did you mean 'x2ct'?"),
    ],
)
def test_what_the_store_lacks_is_said_before_the_first_batch(
    store: Store, change: dict[str, Any], message: str
) -> None:
    data = DATA.model_copy(update=change)
    with pytest.raises(UserError) as told:
        sequential(store, store.cases, data, batch=1, device=CPU)
    assert message in str(told.value)
    assert str(store.path) in str(told.value)


def test_a_batch_that_ranks_and_accumulation_do_not_divide_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match="nearest: 4 or 8"):
        loader(store, batch=6, world_size=2, accumulation=2)


def test_no_training_case_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match="at least one case"):
        Loader(
            store,
            [],
            DATA,
            Augmentation(),
            batch=1,
            accumulation=1,
            rank=0,
            world_size=1,
            seed=0,
            device=CPU,
        )
