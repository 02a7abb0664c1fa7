"""A view's matrices: kept for the next volume within a bound, and applied slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xr2ct.projection import view_matrices
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import backproject, project
from xr2ct.projection.sparse import Sparse

GEOMETRY = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=24)
SHAPE, SPACING, ANGLES = (52, 20, 26), (10.0, 14.0, 11.0), (0.0, 30.0, 90.0)
"""520 mm high, of which the detector sees at most 385."""


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    view_matrices.forget()
    yield
    view_matrices.forget()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The angles whose matrices were made."""
    angles = []
    build = view_matrices._build

    def counted(grid: Any, geometry: Geometry, angle: float) -> Any:
        angles.append(angle)
        return build(grid, geometry, angle)

    monkeypatch.setattr(view_matrices, "_build", counted)
    return angles


def volumes(count: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, *SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(0))


def there_and_back(mu: Tensor) -> tuple[Tensor, Tensor]:
    views = project(mu, SPACING, GEOMETRY, ANGLES)
    return views, backproject(views, SHAPE, SPACING, GEOMETRY, ANGLES)


class TestKept:
    def test_a_view_is_made_once_and_its_adjoint_from_it(self, built: list[float]) -> None:
        first = there_and_back(volumes())
        again = there_and_back(volumes())
        assert built == list(ANGLES)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))

    @pytest.mark.parametrize(
        ("spacing", "geometry", "dtype"),
        [
            ((10.0, 14.0, 11.5), GEOMETRY, torch.float64),
            (SPACING, Geometry("small", 541.0, 949.0, 480.0, 24), torch.float64),
            (SPACING, GEOMETRY, torch.float32),
        ],
    )
    def test_another_grid_geometry_or_type_has_its_own(
        self, spacing: tuple[float, float, float], geometry: Geometry, dtype: torch.dtype
    ) -> None:
        mu = volumes(dtype=dtype)
        alone = project(mu, spacing, geometry, ANGLES)
        view_matrices.forget()
        there_and_back(volumes())
        assert torch.equal(project(mu, spacing, geometry, ANGLES), alone)

    def test_no_more_bytes_than_the_bound(self, built: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        expected = there_and_back(volumes())
        each = [m.nbytes for m in view_matrices._kept.values()]
        assert len(each) == 2 * len(ANGLES)
        monkeypatch.setattr(view_matrices, "_KEPT_BYTES", 2 * max(each))
        built.clear()
        found = there_and_back(volumes())
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        project(volumes(), SPACING, GEOMETRY, [60.0])
        assert 0 < sum(m.nbytes for m in view_matrices._kept.values()) <= 2 * max(each)
        # What was used last is kept.
        built.clear()
        project(volumes(), SPACING, GEOMETRY, [60.0])
        assert built == []

    def test_what_inference_made_serves_training(self) -> None:
        with torch.inference_mode():
            project(volumes(), SPACING, GEOMETRY, ANGLES)
        mu = volumes().requires_grad_()
        project(mu, SPACING, GEOMETRY, ANGLES).square().sum().backward()
        assert mu.grad is not None
        assert mu.grad.abs().sum() > 0

    def test_threads_share_them(self) -> None:
        expected = there_and_back(volumes())
        view_matrices.forget()
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(there_and_back, [volumes()] * 8):
                assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation made, views of what it was given left out."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = ([t for t in tree_leaves(x) if torch.is_tensor(t)] for x in ((args, kwargs), out))
        known = {t.untyped_storage().data_ptr() for t in given}
        fresh = [t.numel() for t in made if t.untyped_storage().data_ptr() not in known]
        self.elements = max(self.elements, *fresh, 0)
        return out


class TestSlabs:
    @pytest.mark.parametrize("samples", [1, 1 << 14, 1 << 30])
    def test_slabs_of_any_thickness_give_the_same(
        self, samples: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = there_and_back(volumes(2))
        view_matrices.forget()
        monkeypatch.setattr(view_matrices, "_CPU_SAMPLES", samples)
        grid = view_matrices.Grid(SHAPE, SPACING, torch.float64, torch.device("cpu"))
        assert len(grid.slabs(GEOMETRY.pixels)) == {1: 7, 1 << 14: 4, 1 << 30: 1}[samples]
        for found, value in zip(there_and_back(volumes(2)), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-13, atol=1e-12)

    def test_levels_that_no_ray_meets_get_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(view_matrices, "_CPU_SAMPLES", 1)
        grid = view_matrices.Grid(SHAPE, SPACING, torch.float64, torch.device("cpu"))
        slabs = view_matrices.view_matrices(grid, GEOMETRY, 0.0).slabs
        assert [part is None for part in slabs] == [True, *[False] * 5, True]
        ones = torch.ones(1, 1, 24, 24, dtype=torch.float64)
        back = backproject(ones, SHAPE, SPACING, GEOMETRY, [0.0])
        assert not back[:, :8].any() and not back[:, 48:].any()
        assert back[:, 16:40].any(-1).any(-1).all()

    def test_beside_volume_and_pictures_only_slabs_are_held(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shape = (128, 32, 32)
        monkeypatch.setattr(view_matrices, "_CPU_SAMPLES", 1)
        mu = torch.rand(1, *shape)
        views = project(mu, (3.0, 10.0, 10.0), GEOMETRY, ANGLES)
        backproject(views, shape, (3.0, 10.0, 10.0), GEOMETRY, ANGLES)
        slab = 8 * max(32 * 32, 24 * 46)
        with _Largest() as forward:
            project(mu, (3.0, 10.0, 10.0), GEOMETRY, ANGLES)
        assert 8 * 32 * 32 <= forward.elements <= slab
        with _Largest() as backward:
            backproject(views, shape, (3.0, 10.0, 10.0), GEOMETRY, ANGLES)
        assert backward.elements == mu.numel()  # the result


class TestSparse:
    def test_products_with_the_matrix_and_its_transpose(self) -> None:
        columns = torch.tensor([[0, 3], [1, 1], [2, 0], [4, 4]])
        weights = torch.tensor([[0.5, 0.25], [0.0, 0.0], [1.0, 1e-12], [2.0, 0.5]], dtype=torch.float64)
        matrix = Sparse.gather(columns, weights, 6, torch.float64)
        dense = torch.tensor(
            [[0.5, 0, 0, 0.25, 0, 0], [0] * 6, [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 2.5, 0]], dtype=torch.float64
        )
        right = torch.rand(6, 5, dtype=torch.float64)
        left = torch.rand(4, 5, dtype=torch.float64)
        torch.testing.assert_close(matrix @ right, dense @ right)
        torch.testing.assert_close(matrix.transposed() @ left, dense.T @ left)
        torch.testing.assert_close(matrix.transposed().transposed() @ right, dense @ right)
