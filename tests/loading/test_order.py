from __future__ import annotations

import numpy as np
import pytest

from xr2ct.config import Augmentation
from xr2ct.errors import UserError
from xr2ct.loading.order import Order, check_batch


def epoch(order: Order, cases: int, number: int) -> list[int]:
    return [order.sample(p).case for p in range(number * cases, (number + 1) * cases)]


def test_each_epoch_is_another_permutation_of_all_cases() -> None:
    order = Order(50, 3, Augmentation())
    epochs = [epoch(order, 50, e) for e in range(4)]
    assert all(sorted(e) == list(range(50)) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 4


def test_seeds_give_other_orders_and_draws() -> None:
    a, b = (Order(50, seed, Augmentation()) for seed in (1, 2))
    assert epoch(a, 50, 0) != epoch(b, 50, 0)
    assert a.sample(0).contrast != b.sample(0).contrast


def test_a_sample_does_not_depend_on_what_was_asked_before() -> None:
    walked = Order(7, 0, Augmentation())
    samples = [walked.sample(p) for p in range(40)]
    assert Order(7, 0, Augmentation()).sample(33) == samples[33]


def test_draws_have_the_distribution_asked_for() -> None:
    told = Augmentation(contrast=(0.5, 1.5), rotation_deg=10, rotation_probability=0.3, flip_probability=0.5)
    samples = [Order(5, 0, told).sample(p) for p in range(4000)]
    contrast = np.array([s.contrast for s in samples])
    angle = np.array([s.angle_deg for s in samples])
    # Four standard errors of each figure.
    assert abs(contrast.mean() - 1) < 4 * np.sqrt(1 / 12 / 4000)
    assert 0.5 <= contrast.min() < 0.51
    assert 1.49 < contrast.max() <= 1.5
    assert abs((angle != 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    assert abs(angle).max() <= 10
    assert abs(angle[angle != 0].mean()) < 4 * (20 / np.sqrt(12)) / np.sqrt(1200)
    assert abs(np.mean([s.flip for s in samples]) - 0.5) < 4 * np.sqrt(0.25 / 4000)
    assert abs(np.corrcoef(contrast, [s.flip for s in samples])[0, 1]) < 4 / np.sqrt(4000)


def test_switching_one_augmentation_off_leaves_the_others() -> None:
    every = Order(5, 0, Augmentation())
    none = Order(5, 0, Augmentation(rotation_probability=0, flip="none"))
    for p in range(20):
        assert none.sample(p).contrast == every.sample(p).contrast
        assert (none.sample(p).angle_deg, none.sample(p).flip) == (0.0, False)
    assert {Order(5, 0, Augmentation(contrast=None)).sample(p).contrast for p in range(9)} == {1.0}


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_a_global_batch_in_contiguous_slices(world_size: int) -> None:
    order = Order(5, 0, Augmentation())
    ranks = [order.share(3, 8, rank, world_size) for rank in range(world_size)]
    assert [s for share in ranks for s in share] == [order.sample(p) for p in range(24, 32)]
    assert {len(share) for share in ranks} == {8 // world_size}


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do() -> None:
    check_batch(8, 4, 2)
    with pytest.raises(UserError) as told:
        check_batch(10, 2, 2)
    assert "10" in str(told.value)
    assert "2 ranks × 2 accumulation" in str(told.value)
    assert "8 or 12" in str(told.value)
    with pytest.raises(UserError, match=r"nearest: 8$"):
        check_batch(3, 4, 2)


def test_no_case_is_refused() -> None:
    with pytest.raises(UserError, match="train split is empty"):
        Order(0, 0, Augmentation())
