"""Sub-volumes of a grid: volumes whose voxels say where they are."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xr2ct.config import Augmentation, Data
from xr2ct.errors import UserError
from xr2ct.loading.loader import Loader, sequential
from xr2ct.loading.order import Order, Places
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry
from xr2ct.store import Case, Store, StoreError, layout, write
from xr2ct.store.layout import XraySet

CPU = torch.device("cpu")
SIZE, SIDE, STEP, CONTEXT, CASES = 24, 16, 4, 6, 6
TOP = 32767
DATA = Data(size=SIZE, window=SIDE, hu_window=(0.0, TOP), xray_scale=1.0)
MakeStore = Callable[..., Store]


def numbered(size: int) -> np.ndarray:
    """(case, z, y, x): each voxel of a case another number, not the same in any two."""
    return (np.arange(CASES * size**3) % 32749).astype(np.int16).reshape(CASES, size, size, size)


@pytest.fixture(scope="module")
def store(make_store: MakeStore) -> Store:
    return make_store(CASES, volumes=numbered(SIZE), coarser=numbered(CONTEXT))


class Coarse:
    """A reconstruction of each case, 8³."""

    def volume(self, case: Case) -> np.ndarray:
        return numbered(8)[case.row]


def take(count: int, store: Store, **changes: Any) -> list[Batch]:
    told: dict[str, Any] = {"batch": 4, "accumulation": 1, "rank": 0, "world_size": 1, "seed": 5}
    told |= {"window_step": STEP, "context_side": CONTEXT, "coarse": Coarse()} | changes
    data, augmentation = told.pop("data", DATA), told.pop("augmentation", Augmentation())
    loader = Loader(store, store.cases, data, augmentation, device=CPU, **told)
    batches = list(islice(loader, count))
    loader.close()
    return batches


def numbers(unit: Tensor) -> np.ndarray:
    return np.rint(unit.double().numpy() * TOP).astype(int)


def origins(batch: Batch) -> list[tuple[int, ...]]:
    assert batch.origins is not None
    return [tuple(o) for o in batch.origins.tolist()]


@pytest.mark.parametrize("flip", ["patient", "xray", "none"])
def test_all_of_a_sample_is_of_one_patient_seen_one_way(store: Store, flip: Any) -> None:
    told = Augmentation(contrast=None, rotation_probability=0, flip=flip)
    order = Order(CASES, 5, told)
    turned = Counter[bool]()
    for batch in take(8, store, augmentation=told):
        assert batch.ct.shape == (4, 1, SIDE, SIDE, SIDE)
        assert batch.origins is not None and batch.origins.dtype == torch.int64
        assert batch.coarse is not None and batch.context is not None
        for i, (z, y, x) in enumerate(origins(batch)):
            sample = order.sample(batch.positions[i])
            row = sample.case
            assert batch.cases[i] == f"case{row}"
            patient = sample.flip and flip == "patient"
            way = -1 if patient else 1
            whole, coarse, context = (numbered(size)[row][:, :, ::way] for size in (SIZE, 8, CONTEXT))
            cut = whole[z : z + SIDE, y : y + SIDE, x : x + SIDE]
            np.testing.assert_array_equal(numbers(batch.ct[i, 0]), cut)
            np.testing.assert_array_equal(numbers(batch.coarse[i, 0]), coarse)
            np.testing.assert_array_equal(numbers(batch.context[i, 0]), context)
            angles = (270.0, 0.0) if patient else (90.0, 0.0)
            views = store.xray(store.cases[row], "x2ct", angles)
            np.testing.assert_array_equal(batch.views[i], views[:, :, :: -1 if sample.flip else 1])
            turned[sample.flip] += 1
    assert min(turned[True], turned[False]) > 3 or flip == "none"


def test_places_are_equally_likely_and_none_is_left_out() -> None:
    order = Order(CASES, 0, Augmentation(), Places(SIZE, SIDE, STEP))
    found = [order.sample(p).origin for p in range(2700)]
    counts = Counter(found)
    assert set(counts) == {(z, y, x) for z in (0, 4, 8) for y in (0, 4, 8) for x in (0, 4, 8)}
    # 27 places, 100 each on average; 5 standard deviations.
    assert all(50 < n < 150 for n in counts.values())


def test_places_are_drawn_apart_from_everything_else() -> None:
    plain, off = Order(CASES, 3, Augmentation()), Augmentation(contrast=None, flip="none")
    cut, bare = (Order(CASES, 3, told, Places(SIZE, SIDE)) for told in (Augmentation(), off))
    for p in range(30):
        a, b = plain.sample(p), cut.sample(p)
        assert (a.case, a.contrast, a.angle_deg, a.flip) == (b.case, b.contrast, b.angle_deg, b.flip)
        assert a.origin is None
        assert b.origin == bare.sample(p).origin
    assert Order(CASES, 4, off, Places(SIZE, SIDE)).sample(0).origin != bare.sample(0).origin


def test_any_number_of_ranks_and_a_resume_see_the_same_sub_volumes(store: Store) -> None:
    def told(parts: list[Batch]) -> list[Any]:
        further = [(p.ct, p.views, p.origins, p.coarse, p.context) for p in parts]
        return [torch.cat([t for t in same if t is not None]) for same in zip(*further, strict=True)]

    alone = [told([batch]) for batch in take(4, store)]
    for world_size in (2, 4):
        ranks = [take(4, store, world_size=world_size, rank=rank) for rank in range(world_size)]
        for a, parts in zip(alone, zip(*ranks, strict=True), strict=True):
            assert all(map(torch.equal, a, told(list(parts))))
    for a, batch in zip(alone[3:], take(1, store, first_batch=3), strict=True):
        assert all(map(torch.equal, a, told([batch])))


def test_whole_volumes_may_have_a_stage_before(store: Store) -> None:
    whole = DATA.model_copy(update={"window": None})
    (batch,) = take(1, store, data=whole, window_step=1, context_side=None)
    assert batch.ct.shape == (4, 1, SIZE, SIZE, SIZE)
    assert batch.coarse is not None
    assert batch.coarse.shape == (4, 1, 8, 8, 8)
    assert (batch.origins, batch.context) == (None, None)


def test_each_case_in_order_is_whole(store: Store) -> None:
    (batch,) = sequential(store, store.cases, DATA, batch=CASES, device=CPU)
    np.testing.assert_array_equal(numbers(batch.ct[:, 0]), numbered(SIZE))
    assert (batch.origins, batch.coarse, batch.context) == (None, None, None)


def test_a_store_without_the_chest_around_is_refused_with_the_remedy(store: Store) -> None:
    with pytest.raises(UserError, match=r"no volumes of 12³.*only of 6, 24: ingest with --size 12 too"):
        take(1, store, context_side=12)


@pytest.mark.parametrize("damage", ["altered", "cut short"])
def test_a_damaged_chunk_is_named_wherever_the_sub_volume_lies(make_store: MakeStore, damage: str) -> None:
    store = make_store(CASES, volumes=numbered(SIZE))
    chunk = layout.chunk_file(store.path, f"ct/{SIZE}", 2)
    content = bytearray(chunk.read_bytes())
    if damage == "altered":
        content[-1] ^= 1
    else:
        store.sub_volume(store.cases[2], SIZE, (8, 8, 8), SIDE)
        del content[-2:]
    chunk.write_bytes(content)
    if damage == "altered":
        with pytest.raises(StoreError, match=rf"case2.*ct/{SIZE} differs from its checksum"):
            store.sub_volume(store.cases[2], SIZE, (0, 0, 0), SIDE)
    else:
        store.sub_volume(store.cases[2], SIZE, (0, 0, 0), SIDE)
        with pytest.raises(StoreError, match=rf"case2.*ct/{SIZE} is cut short"):
            store.sub_volume(store.cases[2], SIZE, (8, 8, 8), SIDE)


@pytest.fixture
def large(tmp_path: Path) -> Store:
    """One case of 256³, its chunk a file with holes but for the numbers of one row."""
    path, size = tmp_path / "lidc-idri.zarr", 256
    geometry = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=8)
    write.lay_out(path, "lidc-idri", 320.0, 1, [size], [XraySet(geometry, (0.0,))])
    sums = {"xray/x2ct": write.write_chunk(path, "xray/x2ct", 0, np.ones((1, 8, 8), np.float32))}
    chunk = layout.chunk_file(path, f"ct/{size}", 0)
    chunk.parent.mkdir(parents=True)
    with chunk.open("wb") as file:
        file.truncate(2 * size**3)
        file.seek(2 * size * (200 * size + 100))
        file.write(np.arange(size, dtype="<i2").tobytes())
    with chunk.open("rb") as file:
        sums[f"ct/{size}"] = hashlib.file_digest(file, "sha256").hexdigest()
    write.write_case(path, "case0", {"checksums": sums})
    rows = [{"id": "case0", "patient": "patient0", "split": "train", "row": 0}]
    write.publish(path, rows, [size], ["x2ct"])
    return Store.open(path)


def test_of_a_large_volume_no_more_is_held_or_read_than_is_asked_for(large: Store) -> None:
    case, origin, side = large.cases[0], (190, 96, 224), 32
    tracemalloc.start()
    sub = large.sub_volume(case, 256, origin, side)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = np.zeros((side,) * 3, np.int16)
    expected[10, 4] = np.arange(224, 256)
    np.testing.assert_array_equal(sub, expected)
    # Once it was verified it is 33.5 MB that are neither held …
    assert peak < 1e6
    before = bytes_read()
    large.sub_volume(case, 256, origin, side)
    # … nor read: 32 planes of 32 rows of 512 bytes.
    assert bytes_read() - before < 2 * side * side * 256 + 1e5


def bytes_read() -> int:
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])
