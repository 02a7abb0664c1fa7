"""Patients moved on purpose: how far, what the X-rays then show, and what is scored and told of it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from synthetic_store import write_store

from xr2ct.config import Way
from xr2ct.errors import UserError
from xr2ct.evaluation.in_way import InWay
from xr2ct.evaluation.left_out import LeftOut
from xr2ct.evaluation.moved import Motion, Moved, evaluate_moved, moved_views, read_moved
from xr2ct.evaluation.results import read_results, result_file
from xr2ct.evaluation.sweep import evaluate
from xr2ct.projection.views import scale_views
from xr2ct.reconstruction.pose import Pose
from xr2ct.run import Run
from xr2ct.stages import load_stages
from xr2ct.store import Store
from xr2ct.window import HuWindow

MakeRun = Callable[..., Run]
ANGLES = (90.0, 0.0)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Volumes to reconstruct, and volumes twice as fine to move."""
    splits = ["train", "train", "val", "val", "test"]
    return write_store(tmp_path_factory.mktemp("moving"), splits, [16, 32], ANGLES, 64)


@pytest.fixture(scope="module")
def run(make_run: MakeRun, moving: Store) -> Run:
    """Its one checkpoint makes a weighted sum of the lifted views."""
    made = make_run({500: 0.0}, stores=str(moving.path.parent), size=16)
    for name in ("mapper", "mapper-ema"):
        file = made.checkpoint(500) / f"{name}.safetensors"
        weights = load_file(file)
        kernel = torch.zeros_like(weights["backbone.weight"])
        kernel[0, :, 1, 1, 1] = torch.tensor([0.2, 0.4])
        save_file(weights | {"backbone.weight": kernel}, file)
    evaluate(made)
    return made


class TestMotion:
    def test_is_drawn_within_bounds_and_anew_for_each_case(self) -> None:
        motion = Motion(rotation_deg=4.0, shift_mm=7.0)
        drawn = np.array([motion.draw(f"case{i}", 3)[k].motion for i in range(200) for k in (1, 2)])
        assert (np.abs(drawn[:, :3]) <= 4).all() and (np.abs(drawn[:, 3:]) <= 7).all()
        np.testing.assert_allclose(drawn.std(0), np.array([4] * 3 + [7] * 3) / math.sqrt(3), rtol=0.15)
        assert all(motion.draw(f"case{i}", 3)[0].still for i in range(3))
        assert motion.draw("case7", 3) == motion.draw("case7", 3) != motion.draw("case8", 3)

    def test_a_corner_is_as_far_as_it_goes_in_every_direction(self) -> None:
        corners = {Motion(corner=True).draw(f"case{i}", 2)[1].motion for i in range(20)}
        assert {tuple(map(abs, corner)) for corner in corners} == {(5.0, 5.0, 5.0, 10.0, 10.0, 10.0)}
        assert len(corners) > 10

    def test_names_are_read_back_and_are_nothing_elses(self) -> None:
        for told in (
            Moved("step-000500", Motion(), ""),
            Moved("step-000500", Motion(2.5, 8.0, True), "align-3+refine-20"),
        ):
            assert Moved.of(told.source) == told
            assert InWay.of(told.source) is None and LeftOut.of(told.source) is None
        assert Moved("step-000500", Motion(), "align-3").source == "step-000500~moved-5-10+align-3"
        assert Moved.of("step-000500~align-3") is None and Moved.of("step-000500") is None


class TestViews:
    def test_a_still_view_is_the_stores_and_a_shift_moves_the_picture(self, moving: Store) -> None:
        case = moving.split("test")[0]
        stored = torch.from_numpy(moving.xray(case, "x2ct", ANGLES))
        shift = 2 * 500 / 64 * 541 / 949
        """Two columns, mm at the isocentre."""
        left, right = (
            moved_views(moving, case, "x2ct", ANGLES, (Pose(), Pose(shift_mm=(x, 0.0, 0.0))), 16)
            for x in (-shift, shift)
        )
        assert torch.equal(left[0], stored[0]) and torch.equal(right[0], stored[0])
        off = {
            lag: float((left[1, :, 8:-8] - right[1].roll(-lag, dims=1)[:, 8:-8]).norm())
            for lag in range(-8, 9)
        }
        assert min(off, key=off.__getitem__) == 4

    def test_volumes_no_finer_than_the_reconstruction_are_refused(self, moving: Store) -> None:
        case = moving.split("test")[0]
        with pytest.raises(UserError, match=r"finest volumes are 32³.*at least 64³.*--size 32,64"):
            moved_views(moving, case, "x2ct", ANGLES, (Pose(), Pose()), 32)


class TestEvaluateMoved:
    def test_scores_are_of_the_mapper_on_patients_who_moved(self, run: Run, moving: Store) -> None:
        sweep = evaluate_moved(run, [Way()])

        assert len(sweep.written) == 2
        results = {(told.label, r.split): r for told, r in read_moved(run)}
        result = results["", "test"]
        case = moving.split("test")[0]
        poses = Motion().draw(case.id, 2)
        views = moved_views(moving, case, "x2ct", ANGLES, poses, 16)
        stages_views = torch.from_numpy(scale_views(views.numpy(), "max"))[None]
        volume = load_stages(run.checkpoint(500), "mapper-ema")(stages_views)[0, 0].clamp(0, 1)
        truth = HuWindow().to_unit(torch.from_numpy(moving.volume(case, 16)).float())
        psnr = -10 * math.log10(float((volume - truth).square().mean()))
        assert result.rows[0]["honest/psnr"] == pytest.approx(psnr, abs=1e-3)
        unmoved = next(r for r in read_results(run) if (r.source, r.split) == ("step-000500", "test"))
        assert result.rows[0]["honest/psnr"] != unmoved.rows[0]["honest/psnr"]

    def test_poses_drawn_and_found_are_told(self, run: Run, moving: Store) -> None:
        evaluate_moved(run, [Way(align=1)], Motion(corner=True))

        source = Moved("step-000500", Motion(corner=True), "align-1").source
        file = result_file(run, source, "lidc-idri", "val").with_suffix(".poses.csv")
        rows = list(csv.DictReader(file.open(encoding="utf-8")))
        cases = [case.id for case in moving.split("val")]
        assert [(row["case"], row["view"]) for row in rows] == [(c, v) for c in cases for v in ("90", "0")]
        for row in rows[1::2]:
            drawn = Motion(corner=True).draw(row["case"], 2)[1]
            assert float(row["drawn_shift_y_mm"]) == drawn.shift_mm[1]
            assert float(row["drawn_turn_z_deg"]) == drawn.rotation_deg[2]
        assert all(float(value) == 0 for row in rows[::2] for key, value in row.items() if "_" in key)

    def test_what_is_scored_stays_and_stands_in_no_other_table(self, run: Run) -> None:
        evaluate_moved(run, [Way()])
        assert evaluate_moved(run, [Way()]).written == []
        assert {r.source for r in read_results(run)} == {
            "step-000500",
            "truth",
            "prior-mean",
            "prior-nearest",
        }

    def test_ways_that_draw_are_refused(self, run: Run) -> None:
        with pytest.raises(UserError, match="doubt-views"):
            evaluate_moved(run, [Way(doubt="views")])
