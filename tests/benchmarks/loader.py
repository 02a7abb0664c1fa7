"""Batches of 128³ volumes with their X-rays, from the disk to what a training step is given.

Both sides deliver the same and it is counted whole: float32 volumes on [0, 1] (HU window) and float32 views,
each divided by its own maximum, as tensors on the device, in random order and without augmentation. The files
have been read before and lie in the page cache; with ours, their checksums have been verified before too.
Torch has one thread on either side: beside two workers or DALI's threads a second only waits for a core.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.harness import Measured, Row, seconds_of

SIZE, BATCH, CASES = 128, 4, 24
LOW, WIDTH = -1024.0, 2500.0
ANGLES = (90.0, 0.0)
AHEAD, TIMED, ROUNDS = 8, 16, 5
"""Batches drawn in each turn before the clock starts, so that neither side begins with what it read while the
other had its turn; batches timed; turns."""

Batches = Iterator[tuple[Tensor, Tensor]]


def against_data_loader(device: str) -> Measured:
    """PyTorch's loader with 2 workers that stay: chunks read by NumPy as the plain files that they are; the
    HU window in the workers or, after int16 through shared memory, on arrival: whichever is faster."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder))
        return in_turn(ours(store, device), data_loaders(store, device))


def against_numpy_reader(device: str) -> Measured:
    """DALI's reader of .npy files, mapped, of the same volumes and of views that were scaled beforehand. The
    HU window is worked out as ours is, in the same memory each time, so that the readers are compared."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder))
        write_npy(store, Path(folder))
        return in_turn(ours(store, device), {"readers.numpy": numpy_reader(Path(folder), device)})


def in_turn(ours: Batches, peers: Mapping[str, Batches]) -> Measured:
    """Seconds a volume, A B A B …; of several ways to use the peer, the fastest in each turn."""
    sides = {"ours": ours, **peers}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(1 + ROUNDS):
            for name, batches in sides.items():
                draw(batches, AHEAD)
                took = seconds_of(partial(draw, batches, TIMED)) / (TIMED * BATCH)
                if turn:
                    seconds[name].append(took)
    finally:
        torch.set_num_threads(threads)
    rates = {name: 1 / statistics.median(s) for name, s in seconds.items()}
    fastest = [min(turn) for turn in zip(*(seconds[name] for name in peers), strict=True)]
    return Measured(seconds["ours"], fastest, "s a volume", {"volumes_per_s": rates})


def draw(batches: Batches, count: int) -> None:
    for _ in range(count):
        ct, views = next(batches)
        assert (ct.shape, ct.dtype) == ((BATCH, 1, SIZE, SIZE, SIZE), torch.float32)
        assert (views.shape[:2], views.dtype) == ((BATCH, len(ANGLES)), torch.float32)


def ours(store: Any, device: str) -> Batches:
    from xr2ct.config import Data
    from xr2ct.loading.loader import NO_AUGMENTATION, Loader

    loader = Loader(
        store,
        store.cases,
        Data(size=SIZE, views=ANGLES, hu_window=(LOW, LOW + WIDTH)),
        NO_AUGMENTATION,
        batch=BATCH,
        accumulation=1,
        rank=0,
        world_size=1,
        seed=0,
        device=torch.device(device),
    )
    return ((batch.ct, batch.views) for batch in loader)


def windowed(hu: Tensor) -> Tensor:
    """As anyone would write it, without memory for in-between results."""
    return hu.float().sub_(LOW).div_(WIDTH).clamp_(0, 1)


def data_loaders(store: Any, device: str) -> dict[str, Batches]:
    as_read = data_loader(Chunks(store, lambda hu: hu), device)
    return {
        "window in the workers": data_loader(Chunks(store, windowed), device),
        "window on arrival": ((windowed(hu), views) for hu, views in as_read),
    }


def data_loader(chunks: Chunks, device: str) -> Batches:
    loader = torch.utils.data.DataLoader(
        chunks,
        BATCH,
        sampler=Endless(CASES),
        num_workers=2,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )
    return ((ct.to(device, non_blocking=True), v.to(device, non_blocking=True)) for ct, v in loader)


class Chunks(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """A store's cases: (1, z, y, x), int16 or what `change` makes of it, and scaled float32 views."""

    def __init__(self, store: Any, change: Callable[[Tensor], Tensor]) -> None:
        self._path, self._cases, self._change = store.path, len(store.cases), change
        self._pixels = store.geometries["x2ct"].pixels
        self._views = [store.angles("x2ct").index(angle) for angle in ANGLES]

    def __len__(self) -> int:
        return self._cases

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        volume = np.fromfile(self._path / f"ct/{SIZE}/c/{row}/0/0/0", "<i2")
        xrays = np.fromfile(self._path / f"xray/x2ct/c/{row}/0/0/0", "<f4")
        views = xrays.reshape(-1, self._pixels, self._pixels)[self._views]
        views /= views.max((1, 2), keepdims=True)
        return self._change(torch.from_numpy(volume.reshape(1, SIZE, SIZE, SIZE))), torch.from_numpy(views)


class Endless(torch.utils.data.Sampler[int]):
    """One permutation after the other, so that no turn has the end of an epoch in it."""

    def __init__(self, cases: int) -> None:
        self._cases = cases

    def __iter__(self) -> Iterator[int]:
        noise = np.random.default_rng(0)
        while True:
            yield from noise.permutation(self._cases).tolist()


def write_npy(store: Any, folder: Path) -> None:
    for case in store.cases:
        views = store.xray(case, "x2ct", ANGLES)
        np.save(folder / f"ct-{case.row:03d}.npy", store.volume(case, SIZE)[np.newaxis])
        np.save(folder / f"views-{case.row:03d}.npy", views / views.max((1, 2), keepdims=True))


def numpy_reader(folder: Path, device: str) -> Batches:
    from nvidia.dali import fn, pipeline_def

    @pipeline_def
    def graph() -> Any:
        told = {"file_root": str(folder), "dont_use_mmap": False, "random_shuffle": True, "seed": 0}
        ct, views = (
            fn.readers.numpy(file_filter=f"{name}-*.npy", name=name, **told) for name in ("ct", "views")
        )
        return (ct.gpu(), views.gpu()) if device == "cuda" else (ct, views)

    on_gpu = device == "cuda"
    pipeline = graph(batch_size=BATCH, num_threads=2, device_id=0 if on_gpu else None)
    pipeline.build()
    stream = torch.cuda.current_stream() if on_gpu else None
    ct = torch.empty((BATCH, 1, SIZE, SIZE, SIZE), device=device)
    pipeline.schedule_run()
    while True:
        pipeline.schedule_run()  # the next, while this one is waited for and used
        outputs = pipeline.share_outputs(cuda_stream=stream)
        hu, pictures = (torch.from_dlpack(output.as_tensor()) for output in outputs)
        ct.copy_(hu).sub_(LOW).div_(WIDTH).clamp_(0, 1)
        views = pictures.clone()
        del outputs, hu, pictures
        pipeline.release_outputs()
        yield ct, views


def make_store(folder: Path) -> Any:
    """Noise about the window's width: the times do not depend on what the volumes show."""
    from xr2ct.projection.geometry import Geometry
    from xr2ct.store import Store, write
    from xr2ct.store.layout import XraySet

    path, noise = folder / "lidc-idri.zarr", np.random.default_rng(0)
    geometry = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=256)
    write.lay_out(path, "lidc-idri", 320.0, CASES, [SIZE], [XraySet(geometry, ANGLES)])
    rows = []
    for row in range(CASES):
        chunks = {
            f"ct/{SIZE}": noise.integers(-1100, 1600, (SIZE,) * 3, np.int16),
            "xray/x2ct": noise.random((len(ANGLES), 256, 256), np.float32),
        }
        sums = {name: write.write_chunk(path, name, row, values) for name, values in chunks.items()}
        write.write_case(path, f"case{row}", {"checksums": sums})
        rows.append({"id": f"case{row}", "patient": f"patient{row}", "split": "train", "row": row})
    write.publish(path, rows, [SIZE], ["x2ct"])
    return Store.open(path)


def _rows(device: Any, suffix: str) -> tuple[Row, ...]:
    peers: list[tuple[str, str, float, Callable[[str], Measured]]] = [
        ("loader", "torch DataLoader, 2 workers, same store", 4.0, against_data_loader),
        ("loader-numpy", "DALI readers.numpy, mmap", 0.5, against_numpy_reader),
    ]
    return tuple(
        Row(
            name + suffix,
            f"batches of {BATCH} volumes of {SIZE}³ and {len(ANGLES)} views, as the step takes them",
            peer,
            "peer/ours",
            goal,
            lambda measure=measure: measure(device),
            device=device,
        )
        for name, peer, goal, measure in peers
    )


ROWS = (*_rows("cpu", ""), *_rows("cuda", "-cuda"))
