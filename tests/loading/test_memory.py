from __future__ import annotations

import gc

import torch

from xr2ct.loading.memory import KEPT, Memory


def test_memory_is_lent_again_once_nothing_refers_to_it() -> None:
    memory = Memory()
    first = memory.tensor((4, 8))
    where = first.data_ptr()
    assert first.shape == (4, 8)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
    assert memory.tensor((4, 8)).data_ptr() != where
    del first
    assert memory.tensor((4, 9)).data_ptr() != where
    assert memory.tensor((2, 16)).data_ptr() == where


def test_whatever_refers_to_a_tensor_keeps_its_memory() -> None:
    memory = Memory()
    for keep in (
        lambda t: t[1, 2:4],
        lambda t: t.numpy()[1],
        lambda t: t.view(torch.int32).detach(),
        lambda t: (t.requires_grad_() * t).sum().grad_fn,
    ):
        lent = memory.tensor((4, 8))
        where = lent.data_ptr()
        kept = keep(lent)
        del lent
        gc.collect()
        others = [memory.tensor((4, 8)) for _ in range(KEPT + 1)]
        assert where not in [t.data_ptr() for t in others]
        del kept, others
        gc.collect()


def test_no_more_is_kept_than_a_few_blocks() -> None:
    memory = Memory()
    lent = [memory.tensor((16,)) for _ in range(KEPT + 3)]
    places = {t.data_ptr() for t in lent}
    lent.clear()
    again = [memory.tensor((16,)) for _ in range(KEPT)]
    assert {t.data_ptr() for t in again} <= places
    assert memory.tensor((16,)).data_ptr() not in {t.data_ptr() for t in again}


def test_memory_outlives_whoever_lent_it() -> None:
    memory = Memory()
    lent = memory.tensor((1000,)).fill_(7)
    del memory
    gc.collect()
    assert bool((lent == 7).all())
