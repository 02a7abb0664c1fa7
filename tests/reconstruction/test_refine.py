"""Volumes moved towards their X-rays: what falls, what does not get worse, where it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from synthetic_store import CUBE_MM, chest
from torch import Tensor

from xr2ct.cohorts.reader import read_volume_file
from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.evaluation.metrics import score_volume
from xr2ct.models.features import Config, FeatureExtractor
from xr2ct.projection.agreement import at_grid
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.reconstruction.beams import Beams, XRays
from xr2ct.reconstruction.noise import detail_level, noise_level, pixel_noise
from xr2ct.reconstruction.pose import Pose
from xr2ct.reconstruction.priors import feature_distance, named_prior, total_variation
from xr2ct.reconstruction.refine import refine
from xr2ct.window import HuWindow

WINDOW = HuWindow()
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=128)
VIEWS = (90.0, 0.0)
BEAMS = Beams(GEOMETRY, VIEWS, CUBE_MM, WINDOW)
CHESTS = [chest(number, "lidc-idri") for number in range(4)]


def unit_chest(number: int, size: int = 32) -> Tensor:
    return WINDOW.to_unit(F.avg_pool3d(CHESTS[number][None], 64 // size)[0])


def xray(number: int) -> Tensor:
    """(view, row, col) line integrals of the chest at 64³, which coarser voxels cannot quite show."""
    return project(attenuation(CHESTS[number][None]), (CUBE_MM / 64,) * 3, GEOMETRY, VIEWS)[0]


def mean_chest() -> Tensor:
    """Of the others than chest 0: what one would say without its X-rays."""
    return torch.stack([unit_chest(number) for number in (1, 2, 3)]).mean(0)


def error(unit: Tensor, beams: Beams, lines: Tensor) -> float:
    return float((beams.project(unit) - lines).norm() / lines.norm())


@pytest.mark.parametrize("prior", ["none", "tv", "features"])
def test_the_reprojection_error_falls_fivefold_and_the_volume_gets_better(prior: str) -> None:
    truth, start, lines = unit_chest(0), mean_chest(), xray(0)
    priors = {
        "none": None,
        "tv": total_variation(start),
        "features": feature_distance(
            FeatureExtractor(Config(widths=(4, 8, 8, 8), statistics="batch"), 0), start
        ),
    }
    refined = refine(start, XRays(lines), BEAMS, 30, prior=priors[prior])
    assert refined.before == pytest.approx(error(start, BEAMS, lines), rel=1e-4)
    assert refined.after == pytest.approx(error(refined.unit, BEAMS, lines), rel=1e-3)
    assert refined.after < refined.before / 5
    before, after = (score_volume(v, truth, WINDOW.width, {}) for v in (start, refined.unit))
    assert after["honest/psnr"] > before["honest/psnr"] + 0.5
    assert after["honest/ssim"] > before["honest/ssim"]
    assert after["honest/mae"] < before["honest/mae"]
    assert refined.unit.min() >= 0 and refined.unit.max() <= 1


def test_it_stops_at_the_noise_level() -> None:
    """Morozov: once the X-rays are as near as their noise lets them be, and not before."""
    start, lines = mean_chest(), xray(0)
    loose, tight = (refine(start, XRays(lines), BEAMS, 30, noise=noise) for noise in (0.06, 0.03))
    for refined, noise in ((loose, 0.06), (tight, 0.03)):
        assert refined.stopped == "noise level" and refined.noise == noise
        assert refined.after <= noise
    assert 0 < loose.steps < tight.steps < 30
    few = refine(start, XRays(lines), BEAMS, 1, noise=0.03)
    assert (few.stopped, few.steps) == ("steps", 1) and few.after > 0.03


def test_a_volume_that_agrees_stays_as_it_is() -> None:
    start = unit_chest(0)
    refined = refine(start, XRays(BEAMS.project(start)), BEAMS, 10)
    assert (refined.steps, refined.stopped) == (0, "noise level")
    torch.testing.assert_close(refined.unit, start, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("angles", [VIEWS, (45.0, 120.0)])
def test_what_a_grid_cannot_show_is_known_from_the_xrays_alone(size: int, angles: tuple[float, ...]) -> None:
    lines = project(attenuation(CHESTS[0][None]), (CUBE_MM / 64,) * 3, GEOMETRY, angles)[0]
    floor = error(unit_chest(0, size), replace(BEAMS, angles_deg=angles), lines)
    assert detail_level(lines, GEOMETRY, CUBE_MM / size) == pytest.approx(floor, rel=0.25)


def test_noise_of_the_pixels_is_counted_whole() -> None:
    lines = xray(0)
    noisy = lines + 0.2 * torch.randn(lines.shape, generator=torch.Generator().manual_seed(0))
    assert pixel_noise(lines) < 0.01
    assert pixel_noise(noisy) == pytest.approx(0.2, rel=0.1)
    share = 0.2 * lines.numel() ** 0.5 / float(lines.norm())
    assert noise_level(noisy, GEOMETRY, CUBE_MM / 32) > 0.95 * share


def test_a_picture_of_one_value_is_shown_as_it_is() -> None:
    flat = torch.full((1, 128, 128), 3.0)
    torch.testing.assert_close(at_grid(flat, GEOMETRY, 10.0), flat, rtol=1e-5, atol=0)
    seen = torch.zeros_like(flat, dtype=torch.bool)
    seen[:, 30:90] = True
    wild = torch.where(seen, flat, 1e4)
    torch.testing.assert_close(at_grid(wild, GEOMETRY, 10.0, seen)[seen], flat[seen], rtol=1e-4, atol=0)


def test_pixels_that_are_not_seen_do_not_count() -> None:
    start, lines = mean_chest(), xray(0)
    seen = torch.ones_like(lines, dtype=torch.bool)
    seen[:, :40] = False
    one, other = (
        refine(start, XRays(torch.where(seen, lines, blade), seen), BEAMS, 8) for blade in (0.0, 30.0)
    )
    torch.testing.assert_close(one.unit, other.unit, rtol=0, atol=1e-5)
    assert one.after < one.before / 3
    assert (one.unit - refine(start, XRays(lines), BEAMS, 8).unit).abs().max() > 0.01


def test_a_radiographs_unknown_scale_does_not_matter() -> None:
    """Gain and offset of each view are found along the way."""
    truth, start, lines = unit_chest(0), mean_chest(), xray(0)
    response = torch.tensor([[[0.3]], [[70.0]]]), torch.tensor([[[5.0]], [[-20.0]]])
    plain = refine(start, XRays(lines, calibrated=False), BEAMS, 15)
    other = refine(start, XRays(lines * response[0] + response[1], calibrated=False), BEAMS, 15)
    torch.testing.assert_close(other.unit, plain.unit, rtol=0, atol=0.01)
    assert other.after < other.before / 3
    assert (other.unit - truth).square().mean() < (start - truth).square().mean()


def test_an_inverted_radiograph_is_named() -> None:
    lines = xray(0)
    with pytest.raises(UserError, match=r"the X-ray at 0° does not grow .* is it inverted"):
        refine(mean_chest(), XRays(torch.stack([lines[0], -lines[1]]), calibrated=False), BEAMS, 5)
    with pytest.raises(UserError, match="0 wherever they are seen"):
        refine(mean_chest(), XRays(torch.zeros_like(lines)), BEAMS, 5)


def test_air_stays_air_and_nothing_leaves_the_window() -> None:
    """Also of a window that does not reach down to air, and in inference mode."""
    start, lines = mean_chest(), xray(0)
    refined = refine(start, XRays(lines), BEAMS, 20, noise=0)
    outside = F.max_pool3d((start > 0.02).float()[None], 5, stride=1, padding=2)[0] == 0
    assert outside.sum() > 500
    assert refined.unit[outside].max() < 0.04
    narrow = HuWindow(-500.0, 500.0)
    unit = narrow.to_unit(WINDOW.to_hu(start))
    with torch.inference_mode():
        unit = unit.clone()
        prior = total_variation(unit)
        refined = refine(unit, XRays(lines), replace(BEAMS, window=narrow), 10, prior=prior)
    assert refined.after < refined.before
    assert refined.unit.min() >= 0 and refined.unit.max() <= 1


def test_of_a_patient_who_moved_the_pose_is_taken_into_account() -> None:
    truth, start = unit_chest(0), mean_chest()
    poses = (Pose(), Pose((0.0, 4.0, 0.0), (12.0, 0.0, -8.0)))
    moved = replace(BEAMS, poses=poses)
    xrays = XRays(moved.project(truth))
    knowing, ignorant = (refine(start, xrays, beams, 15, noise=0.01) for beams in (moved, BEAMS))
    before, known, unknown = (
        float((unit - truth).square().mean()) for unit in (start, knowing.unit, ignorant.unit)
    )
    # Two views can be met by a volume in any pose, but it is not the patient.
    assert known < 0.9 * before and known < 0.9 * unknown


def test_priors_hold_against_what_they_are_priors_of() -> None:
    start, xrays = mean_chest(), XRays(xray(0))
    extractor = FeatureExtractor(Config(widths=(4, 8, 8, 8), statistics="batch"), 0)
    rough, unlike = total_variation(start, 1.0), feature_distance(extractor, start, 1.0)
    assert rough(start) == 0 and unlike(start) == 0
    plain = refine(start, xrays, BEAMS, 15, noise=0.04)
    smooth = refine(start, xrays, BEAMS, 15, noise=0.04, prior=total_variation(start, 5.0))
    alike = refine(start, xrays, BEAMS, 15, noise=0.04, prior=feature_distance(extractor, start, 300.0))
    assert rough(smooth.unit) < 0.95 * rough(plain.unit)
    assert unlike(alike.unit) < 0.95 * unlike(plain.unit)


def test_the_checkpoints_own_features(tmp_path: Path) -> None:
    keys = {"name": "neural-ot", "features": {"widths": [2, 2, 4, 4]}}
    experiment = Experiment(name="test", method=keys)
    extractor = FeatureExtractor(Config(widths=(2, 2, 4, 4)), 0)
    for weights in extractor.parameters():
        weights.mul_(0.5)  # as no seed draws them
    save_file(extractor.state_dict(), tmp_path / "features.safetensors")
    start, other = unit_chest(0), unit_chest(1)
    prior = named_prior("features", tmp_path, experiment)(start)
    assert prior is not None
    torch.testing.assert_close(prior(other), feature_distance(extractor, start)(other))
    with pytest.raises(UserError, match=r"trained by regression, which leaves no features.safetensors"):
        named_prior("features", tmp_path, Experiment(name="test", method={"name": "regression"}))
    assert named_prior("none", tmp_path, experiment)(start) is None


def test_a_real_chest(real_data: Path) -> None:
    """Its own blur and a wrong density, put right by its X-rays at 256 pixels."""
    native = read_volume_file(real_data / "chest" / "ct-64" / "ct-64.nrrd")
    hu = torch.from_numpy(np.asarray(native.hu, np.float32))
    fine = F.interpolate(hu[None, None], (64,) * 3, mode="trilinear")[0]
    lines = project(attenuation(fine), (CUBE_MM / 64,) * 3, GEOMETRY, VIEWS)[0]
    truth = WINDOW.to_unit(F.avg_pool3d(fine, 2)[0])
    start = 0.9 * F.avg_pool3d(truth[None], 5, stride=1, padding=2, count_include_pad=False)[0]
    refined = refine(start, XRays(lines), BEAMS, 30)
    assert refined.after < refined.before / 5
    before, after = (score_volume(v, truth, WINDOW.width, {}) for v in (start, refined.unit))
    assert after["honest/psnr"] > before["honest/psnr"] + 1
    assert after["honest/ssim"] > before["honest/ssim"]
    assert after["honest/mae"] < before["honest/mae"]
