"""The page of a patient: what it says of its files, and what headless Chromium draws of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import known_patient as patient
import numpy as np
import pytest
import torch
from chest_volumes import write_radiograph
from viewer import Viewer

from xr2ct.cli import main
from xr2ct.errors import UserError
from xr2ct.exchange.volumes import write_volume
from xr2ct.projection.geometry import NAMED
from xr2ct.projection.views import Stated
from xr2ct.provenance import sha256
from xr2ct.reconstruction.pose import Pose, move
from xr2ct.viewing.page import write_view
from xr2ct.viewing.volumes import Volume, read_hu, read_map, shrink
from xr2ct.viewing.xrays import project_view, views_of

ANGLES = (0.0, 90.0, 180.0)
LONGER = 1.25
"""By how much more than the volume would, the X-rays that came in weaken the beam."""
FOLDER = "eine Mappe: früh & spät"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient's files, in a folder with a name that no URL holds as it is."""
    made = tmp_path_factory.mktemp("views") / FOLDER
    header = {"xr2ct_experiment": patient.HOSTILE, "xr2ct_views_deg": "0 90", "PatientName": "Doe^Jane"}
    path = patient.write(made / "made.mha", patient.body(), **header)
    truth = patient.body()
    truth[truth == patient.WATER_HU] = patient.TRUE_HU
    patient.write(made / "truth.mha", truth)
    patient.write(made / "doubt.nii.gz", patient.doubt())
    patient.write(made / "unseen.mha", patient.unseen())
    volume = read_hu(path)
    views = np.stack([project_view(volume, patient.GEOMETRY, angle) for angle in ANGLES])
    patient.xrays(made, LONGER * views, ANGLES)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_view(
        folder / "made.mha",
        folder / "page one.html",
        xrays=[f"PA={folder / 'angle_180.mha'}", f"90={folder / 'angle_090.mha'}"],
        doubt=folder / "doubt.nii.gz",
        unseen=folder / "unseen.mha",
        truth=folder / "truth.mha",
    )


@pytest.fixture
def opened(viewer: Viewer, page: Path) -> Viewer:
    viewer.open(page, max(patient.EXTENT_MM))
    return viewer


def grey(hu: float, level: float, width: float) -> int:
    return round(float(np.clip(255 * (hu - level + width / 2) / width, 0, 255)))


def near(colour: list[int], expected: float | list[float], within: float = 1.5) -> bool:
    return bool(np.all(np.abs(np.subtract(colour, expected)) <= within))


def test_planes_hang_as_a_radiologist_reads_them(opened: Viewer) -> None:
    """The ball, on the patient's left, in front and below, and nothing where its mirror image would be."""
    z, y, x = patient.BALL_MM
    opened.click("axial", (0, y, x))
    opened.click("coronal", (z, 0, x))
    ball, water = grey(patient.BALL_HU, -300, 1400), grey(patient.WATER_HU, -300, 1400)
    for plane in ("axial", "coronal", "sagittal"):
        assert near(opened.pixel(plane, patient.BALL_MM), ball), plane
    assert near(opened.pixel("axial", (0, y, -x)), water)
    assert near(opened.pixel("axial", (0, -y, x)), water)
    assert near(opened.pixel("coronal", (z, 0, -x)), water)
    assert near(opened.pixel("coronal", (-z, 0, x)), water)
    assert near(opened.pixel("sagittal", (z, -y, 0)), water)
    assert near(opened.pixel("sagittal", (-z, y, 0)), water)
    assert near(opened.pixel("axial", (0, 0, -46)), grey(patient.AIR_HU, -300, 1400))
    letters = (
        "return [...document.querySelectorAll(`[data-plane=${arguments[0]}] .letter`)]"
        ".map((letter) => [letter.className, letter.textContent])"
    )
    found = {plane: dict(opened.run(letters, plane)) for plane in ("axial", "coronal", "sagittal")}
    assert {key.split()[1]: value for key, value in found["axial"].items()} == {
        "left": "R", "right": "L", "top": "A", "bottom": "P"
    }  # fmt: skip
    assert found["coronal"] | {"letter top": "H"} == found["coronal"]
    assert [found["sagittal"][f"letter {edge}"] for edge in ("left", "right", "top", "bottom")] == list(
        "APHF"
    )


def test_the_table_tells_hu_and_millimetres(opened: Viewer) -> None:
    z, y, x = patient.BALL_MM
    opened.click("axial", (0, y, x))
    opened.click("coronal", (z, 0, x))
    opened.run(
        "document.querySelector('[data-plane=coronal] canvas').dispatchEvent(new Event('pointerleave'))"
    )
    opened.settle()
    told = opened.values()
    assert (told["HU"], told["Truth"]) == ("700", "700")
    assert (told["x"], told["y"], told["z"]) == ("25.5 mm L", "−26.0 mm A", "−22.5 mm F")
    column = round((x + 46.5) / 3)
    assert abs(float(told["Doubt"].split()[1]) - (10 + 4 * column)) <= 0.5
    assert told["Unseen"] == "100 HU" or told["Unseen"] == "100.0 HU"
    assert opened.find("#values caption").text == "At the crosshair"
    opened.drag("[data-plane=axial] canvas", opened.at("axial", (0, 30, -30)))
    assert opened.find("#values caption").text == "Under the cursor"
    assert opened.values()["HU"] == "50"


def test_a_click_moves_the_other_planes_and_the_wheel_its_own(opened: Viewer) -> None:
    def sliders() -> list[int]:
        return [
            int(opened.find(f"[data-plane={p}] input").get_property("value"))
            for p in ("axial", "coronal", "sagittal")
        ]

    assert sliders() == [n // 2 for n in patient.SHAPE]
    opened.click("sagittal", (-22.5, -26.0, 0))
    assert sliders() == [5, 5, 16]
    opened.drag("[data-plane=axial] canvas", opened.at("axial", (0, 0, 0)), opened.at("axial", (0, 26, 25.5)))
    assert sliders() == [5, 18, 24]
    opened.wheel("axial", -100)
    opened.wheel("axial", -100)
    opened.wheel("coronal", 100)
    assert sliders() == [7, 17, 24]
    opened.press("[data-plane=coronal] canvas", "\ue013", "\ue014", "\ue00e")  # up, right, Page Up
    assert sliders() == [8, 18, 25]
    opened.press("[data-plane=axial] canvas", "\ue015", "\ue012")  # down, left
    assert sliders() == [8, 19, 24]
    opened.press("body", "\ue011")  # Home
    assert sliders() == [n // 2 for n in patient.SHAPE]
    opened.press("[data-plane=sagittal] input", "\ue014")
    assert sliders() == [10, 12, 17]


def test_window_and_level(opened: Viewer) -> None:
    """By preset, by number and by mouse, each as its formula says."""
    water = (12.5, 20.0, -20.0)
    presets = {"1": (-300, 1400), "2": (-600, 1500), "3": (40, 400), "4": (400, 1800), "5": (226, 2500)}
    for key, (level, width) in presets.items():
        opened.press("body", key)
        assert near(opened.pixel("axial", water), grey(patient.WATER_HU, level, width)), key
        assert (
            opened.find("#presets [aria-pressed=true]").text
            == opened.find(f"#presets :nth-child({key})").text
        )
    opened.enter("#level", "100")
    opened.enter("#width", "500")
    assert near(opened.pixel("coronal", water), grey(patient.WATER_HU, 100, 500))
    opened.drag("[data-plane=axial] canvas", (0, 0), (150, -30), right=True)
    level, width = (float(opened.find(css).get_property("value")) for css in ("#level", "#width"))
    assert (level, width) == (150, 1000)
    assert near(opened.pixel("sagittal", water), grey(patient.WATER_HU, level, width))
    opened.find("#presets :nth-child(3)").click()
    opened.settle()
    assert near(opened.pixel("axial", water), grey(patient.WATER_HU, 40, 400))
    assert "Soft window: level 40 HU, width 400 HU" in opened.find("#status").text


def test_doubt_lies_over_the_volume_as_opaque_as_it_is_strong(opened: Viewer) -> None:
    place = (12.5, 20.0, 22.5)
    opened.press("body", "3", "o")
    base = grey(patient.WATER_HU, 40, 400)
    opened.enter("#full", "204")
    share = (10 + 4 * 23) / 204
    strong = np.array([204, 71, 120])  # of half the full colour
    for opacity in (100, 60, 0):
        opened.enter("#opacity", str(opacity))
        expected = base + opacity / 100 * share * (strong - base)
        assert near(opened.pixel("axial", place), list(expected), 3), opacity
    ends = opened.run(
        "return [...document.querySelectorAll('#overlay-legend .ends span')].map((s) => s.textContent)"
    )
    assert ends == ["0.0", "doubt, HU", "204"]
    opened.press("body", "]", "]")
    assert opened.find("#opacity").get_property("value") == "20"
    opened.press("body", "o")
    opened.enter("#opacity", "100")
    opened.enter("#full", "100")
    assert near(opened.pixel("axial", (0, -20, -20)), [255, 92, 66])
    assert near(opened.pixel("axial", (0, 20, -20)), [77, 148, 255])
    opened.press("body", "o")
    assert near(opened.pixel("axial", place), base)


def test_truth_difference_and_blink(opened: Viewer) -> None:
    place = (12.5, 20.0, -20.0)
    opened.press("body", "3")
    made, true = (grey(hu, 40, 400) for hu in (patient.WATER_HU, patient.TRUE_HU))
    assert near(opened.pixel("axial", place), made)
    opened.press("body", "t")
    assert near(opened.pixel("axial", place), true)
    opened.press("body", "d")  # 100 HU too low, of 500
    assert near(opened.pixel("axial", place), [77 / 5, 148 / 5, 255 / 5])
    opened.press("body", "d")
    assert near(opened.pixel("axial", place), made)
    opened.press("body", "b")
    for expected in (true, made, true):
        opened.wait(lambda wanted=expected: near(opened.pixel("axial", place), wanted))
    opened.press("body", "b")
    assert not opened.find("#blink").is_selected()
    opened.settle()
    assert near(opened.pixel("axial", place), made)


def test_means_and_maxima_along_the_axes(opened: Viewer) -> None:
    hu = patient.body().astype(float)
    _, y, x = patient.BALL_MM
    column = round((x + 46.5) / 3)
    row = round((y + 46) / 4)
    opened.press("body", "5", "m")
    assert near(opened.pixel("axial", (0, y, x)), grey(round(hu[:, row, column].mean()), 226, 2500))
    assert near(opened.pixel("axial", (0, y, -x)), grey(patient.WATER_HU, 226, 2500))
    opened.press("body", "m")
    for plane in ("axial", "coronal", "sagittal"):
        assert near(opened.pixel(plane, patient.BALL_MM), grey(patient.BALL_HU, 226, 2500)), plane
    assert near(opened.pixel("coronal", (30, 0, -30)), grey(patient.WATER_HU, 226, 2500))
    assert "maximum along z" in opened.find("[data-plane=axial] .where").text


def test_an_x_ray_and_the_planes_point_at_the_same_place(opened: Viewer, folder: Path) -> None:
    """Each picture's pixel under which the ball lies leads back to the ball, at the crosshair's depth."""
    _, y, x = patient.BALL_MM
    volume = read_hu(folder / "made.mha")
    alone = Volume(np.where(volume.values == patient.BALL_HU, 0, -1000).astype(np.int16), patient.SPACING_MM)
    titles = {180.0: "PA (180°)", 90.0: "RLAT (90°)", 0.0: "Projections of the volume"}
    for angle, title in titles.items():
        view = project_view(alone, patient.GEOMETRY, angle)
        row, column = ((view * axis).sum() / view.sum() for axis in np.indices(view.shape))
        if angle == 180.0:  # the patient's right on the left, as in every frontal view
            column = patient.GEOMETRY.pixels - 1 - column
        opened.click("axial", (0, y, x))  # the depth of both
        opened.click("coronal" if angle != 90 else "sagittal", (20.0, 25.0, -25.0))
        article = next(a for a in opened.chrome.find_elements("css selector", ".view") if title in a.text)
        article_id = f"shot{angle:.0f}"
        opened.run("arguments[0].id = arguments[1]", article, article_id)
        css = f"#{article_id} canvas"
        side = opened.find(css).size["width"] / patient.GEOMETRY.pixels
        middle = (patient.GEOMETRY.pixels - 1) / 2
        opened.drag(css, ((column - middle) * side, (row - middle) * side))
        assert opened.values()["HU"] == str(patient.BALL_HU), title
        pixels = np.array(opened.cross(css)) * patient.GEOMETRY.pixels
        assert np.allclose(pixels, (column + 0.5, row + 0.5), atol=1.2), title
    assert [letter.text for letter in opened.chrome.find_elements("css selector", "#shot180 .letter")][
        :4
    ] == list("RLHF")
    assert [letter.text for letter in opened.chrome.find_elements("css selector", "#shot90 .letter")][
        :4
    ] == list("APHF")


def test_x_rays_beside_re_projections(opened: Viewer) -> None:
    headings = [found.text for found in opened.chrome.find_elements("css selector", ".view h2")]
    assert headings[0].startswith("PA (180°)") and headings[1].startswith("RLAT (90°)")
    assert f"off by {100 * (1 - 1 / LONGER):.1f} % (relative L2)" in headings[0]
    assert "truth on this grid by" in headings[0]
    assert headings[2].startswith("Projections of the volume")
    titles = [t.text for t in opened.chrome.find_elements("css selector", ".picture strong")]
    assert titles[:2] == ["X-ray that came in", "Re-projection"]
    assert titles[2].startswith("Difference, ±")
    assert titles[6:] == ["AP (0°)"]


def test_nothing_of_a_header_becomes_markup(opened: Viewer, page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"https?://|<link|<script[^>]+src|@import", text)
    assert "Doe^Jane" not in text
    assert patient.HOSTILE in opened.find("#about-volume dl").text
    assert "0 90" in opened.find("#about-volume dl").text
    assert "not a medical device" in opened.find("header").text
    assert not opened.find("#notes").is_displayed()


def test_by_keyboard_and_by_name(opened: Viewer) -> None:
    """Whatever can be used has a name; help opens by its key; one plane fills the page and goes back."""
    used = opened.chrome.find_elements("css selector", "#stage input, #stage canvas[tabindex], button")
    assert len(used) > 30
    unnamed = [
        found.get_attribute("outerHTML")
        for found in used
        if found.is_displayed() and not found.accessible_name
    ]
    assert unnamed == []
    opened.press("body", "?")
    assert opened.find("#keys").is_displayed()
    opened.press("#keys", "\ue00c")
    assert not opened.find("#keys").is_displayed()
    small = opened.find("[data-plane=coronal] canvas").size["width"]
    opened.press("[data-plane=coronal] canvas", "z")
    assert opened.find("[data-plane=coronal] canvas").size["width"] > 2.5 * small
    assert not opened.find("[data-plane=axial]").is_displayed()
    opened.press("body", "z")
    assert opened.find("[data-plane=axial]").is_displayed()
    for width in (500, 1280):
        opened.size(width, 800)
        assert opened.run("return document.documentElement.scrollWidth <= window.innerWidth"), width


def test_every_number_arrives_as_it_was(viewer: Viewer, tmp_path: Path) -> None:
    """Noise over all that a volume may hold; it is no cube, off the origin, and larger than what is shown."""
    hu = np.random.default_rng(0).integers(-1024, 32767, patient.SHAPE, dtype=np.int16, endpoint=True)
    path = patient.write(tmp_path / "<!-- <script> noise.mha", hu, offset_mm=40.0)
    viewer.open(write_view(path, tmp_path / "noise.html"), max(patient.EXTENT_MM))
    assert np.array_equal(viewer.run("return Array.from(arrays.volume)"), hu.ravel())
    assert "0.0, 0.0, 40.0 mm" in viewer.find("#notes").text
    assert viewer.values()["z"] == "42.5 mm H"
    viewer.open(write_view(path, tmp_path / "noise.html", max_size=16), max(patient.EXTENT_MM))
    assert "16 × 16 × 16 voxels, each a mean, of the file's 32 × 24 × 20" in viewer.find("#notes").text


def test_a_real_ct(viewer: Viewer, real_data: Path, tmp_path: Path) -> None:
    path = real_data / "chest" / "ct-64" / "ct-64.nrrd"
    viewer.open(write_view(path, tmp_path / "ct.html"), 79 * 3.99)
    hu = read_hu(path).values
    middle = tuple(n // 2 for n in hu.shape)
    assert viewer.values()["HU"] == str(hu[middle]).replace("-", "−")
    assert "not at the origin" in viewer.find("#notes").text
    assert len(viewer.chrome.find_elements("css selector", ".picture")) == 2
    shades = viewer.run(
        "const c = document.querySelector('[data-plane=coronal] canvas');"
        "const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', { willReadFrequently: true });"
        "copy.drawImage(c, 0, 0);"
        "return new Set(copy.getImageData(0, 0, c.width, c.height).data).size"
    )
    assert shades > 100


def test_a_map_is_read_in_the_patients_axes(folder: Path, tmp_path: Path) -> None:
    """Whatever order and direction its file has: the same numbers at the same millimetres."""
    import SimpleITK as sitk

    like = read_hu(folder / "made.mha")
    values = np.random.default_rng(0).normal(0, 50, patient.SHAPE).astype(np.float32)
    image = sitk.ReadImage(str(patient.write(tmp_path / "map.mha", values)))
    turned = sitk.DICOMOrient(image, "ARS")
    sitk.WriteImage(turned, str(tmp_path / "turned.mha"))
    found = read_map(tmp_path / "turned.mha", like, "the map")
    assert np.array_equal(found.values, values)
    assert np.allclose(found.first_mm, like.first_mm)
    assert found.spacing_mm == patient.SPACING_MM


def test_a_smaller_volume_keeps_its_extent_and_its_mean() -> None:
    values = np.random.default_rng(0).normal(0, 100, patient.SHAPE).astype(np.float32)
    volume = Volume(values, patient.SPACING_MM, (-10.0, -20.0, -30.0))
    small = shrink(volume, 12)
    assert small.values.shape == (12, 12, 12)
    assert small.centre_mm == pytest.approx(volume.centre_mm)
    extent = [n * step for n, step in zip(small.values.shape, small.spacing_mm, strict=True)]
    assert extent == pytest.approx(patient.EXTENT_MM)
    even = shrink(Volume(values[:, :, :24], patient.SPACING_MM), 24)
    assert even.values.shape == (20, 24, 24)
    cube = np.random.default_rng(1).integers(-1000, 1000, (8, 8, 8), dtype=np.int16)
    means = cube.reshape(4, 2, 4, 2, 4, 2).mean(axis=(1, 3, 5))
    assert np.array_equal(shrink(Volume(cube, (1.0, 1.0, 1.0)), 4).values, np.rint(means))


def test_an_x_ray_of_the_volume_itself_differs_in_nothing(folder: Path) -> None:
    volume = read_hu(folder / "made.mha")
    views = views_of(volume, [f"AP={folder / 'angle_000.mha'}"])
    assert [view.name for view in views] == ["AP", "RLAT"]
    assert views[0].geometry.detector_mm == views[1].geometry.detector_mm == patient.GEOMETRY.detector_mm
    assert views[0].taken is not None
    assert views[0].relative_l2 == pytest.approx(1 - 1 / LONGER, rel=1e-4)
    assert np.allclose(views[0].taken, LONGER * views[0].made, atol=1e-4)


def test_an_array_is_an_x_ray_by_the_geometry_that_is_stated(folder: Path, tmp_path: Path) -> None:
    """Of as many pixels as it has."""
    volume = read_hu(folder / "made.mha")
    np.save(tmp_path / "x.npy", np.ones((32, 32), np.float32))
    (view, lateral) = views_of(volume, [f"0={tmp_path / 'x.npy'}"], Stated(NAMED["chest-1800"]))
    assert (view.geometry.sid_mm, view.geometry.pixels) == (1800, 32)
    assert lateral.geometry == NAMED["chest-1800"]


def test_a_radiograph_has_no_scale_of_its_own(folder: Path, tmp_path: Path) -> None:
    """One that shows what the volume would, with another gain and offset, differs from it in next to nothing;
    of the same upside down, the correlation tells."""
    volume, x2ct = read_hu(folder / "made.mha"), NAMED["x2ct"]
    shown = project_view(volume, x2ct, 180.0)
    for name, picture in (("right", shown), ("wrong", shown[::-1])):
        # Columns as it hangs: the patient's right on the left.
        grey = np.rint(700 + 900 * picture[:, ::-1]).astype("<u2")
        elements = {"PixelData": grey.tobytes(), "Rows": 256, "Columns": 256, "WindowCenter": 2000}
        spacing = {"ImagerPixelSpacing": [x2ct.pixel_mm] * 2, "WindowWidth": 4000}
        write_radiograph(tmp_path / f"{name}.dcm", 0, "P", f"1.2.{len(name)}", **elements, **spacing)
    view = views_of(volume, [f"PA={tmp_path / 'right.dcm'}"], Stated(x2ct))[0]
    assert view.relative_l2 is not None and view.relative_l2 < 0.02
    assert "correlation is 1.00" in view.notes[-1]
    wrong = views_of(volume, [f"PA={tmp_path / 'wrong.dcm'}"], Stated(x2ct), truth=volume)[0]
    assert wrong.relative_l2 == wrong.floor
    assert wrong.relative_l2 is not None and wrong.relative_l2 > 4 * view.relative_l2
    with pytest.raises(UserError, match="does not say where the patient was"):
        views_of(volume, [f"PA={tmp_path / 'right.dcm'}"])


def test_whether_the_volume_was_made_from_an_x_ray(folder: Path) -> None:
    digest = sha256(folder / "angle_000.mha")
    volume = read_hu(folder / "made.mha")
    for told, expected in (
        (f"0:{digest}", "the volume was made from this file"),
        (f"0:{digest[::-1]}", "not the file that the volume was made from"),
        (f"90:{digest}", "made of views at 90°, not of this one"),
    ):
        made = replace(volume, header={"xr2ct_views_sha256": told})
        assert expected in views_of(made, [f"AP={folder / 'angle_000.mha'}"])[0].notes[0]
    assert views_of(volume, [f"AP={folder / 'angle_000.mha'}"])[0].notes == ()


def test_an_aligned_patient_is_projected_as_he_lay(viewer: Viewer, tmp_path: Path) -> None:
    """And the crosshair on his X-ray follows: the ball's pixel leads back to the ball."""
    z, y, x = (-10.0, -20.0, 20.0)
    places = [(np.arange(20) - 9.5) * 5] * 3
    far = sum((a - b) ** 2 for a, b in zip(np.meshgrid(*places, indexing="ij"), (z, y, x), strict=True))
    hu = np.where(far < 11**2, 700, -1000).astype(np.int16)
    pose = Pose((0.0, 20.0, 0.0), (15.0, 0.0, -10.0))
    told = {"xr2ct_views_deg": "90 0", "xr2ct_poses": f"0 0 0 0 0 0; {' '.join(map(str, pose.motion))}"}
    write_volume(hu, 100.0, tmp_path / "made.mha", told)
    moved = move(torch.from_numpy(hu / 1000 + 1), torch.tensor(pose.motion, dtype=torch.float64), 100.0)
    as_he_lay = Volume(np.rint(1000 * moved.numpy() - 1000).astype(np.int16), (5.0, 5.0, 5.0))
    seen = project_view(as_he_lay, patient.GEOMETRY, 0.0)
    (xray,) = patient.xrays(tmp_path, seen[None], (0.0,))
    (view, _) = views_of(read_hu(tmp_path / "made.mha"), [f"AP={xray}"])
    assert view.relative_l2 is not None and view.relative_l2 < 0.02
    assert "turned by 0, 20, 0° and shifted by 15, 0, -10 mm" in view.notes[-1]
    viewer.open(write_view(tmp_path / "made.mha", tmp_path / "x.html", xrays=[f"AP={xray}"]), 100.0)
    viewer.click("axial", (0, y, x))
    viewer.click("coronal", (z, 0, x))
    row, column = np.argwhere(seen > 0.8 * seen.max()).mean(axis=0)
    side = viewer.find(".picture canvas").size["width"] / patient.GEOMETRY.pixels
    viewer.drag(".picture canvas", ((column - 31.5) * side, (row - 31.5) * side))
    told = viewer.values()
    pixels = np.array(viewer.cross(".picture canvas")) * patient.GEOMETRY.pixels
    assert np.allclose(pixels, (column + 0.5, row + 0.5), atol=2)
    found = [float(told[axis].split()[0].replace("−", "-")) for axis in ("z", "y", "x")]
    assert np.allclose(found, (z, y, x), atol=6)


def test_maps_of_another_reconstruction_and_doubt_that_is_no_error(folder: Path, tmp_path: Path) -> None:
    hu = np.full((8, 8, 8), -1000, np.int16)
    write_volume(hu, 80.0, tmp_path / "made.mha", {"xr2ct_views_sha256": "0:ab", "xr2ct_way": "mapper"})
    doubt = {"xr2ct_views_sha256": "0:cd", "xr2ct_doubt_calibrated": "no"}
    write_volume(hu + 1100, 80.0, tmp_path / "doubt.mha", doubt)
    write_volume(hu + 1100, 80.0, tmp_path / "unseen.mha", {"xr2ct_views_sha256": "0:ab"})
    maps = {name: tmp_path / f"{name}.mha" for name in ("doubt", "unseen")}
    text = write_view(tmp_path / "made.mha", tmp_path / "x.html", **maps).read_text()
    notes = re.findall("<li>(.*?)</li>", text)
    assert [note.split(":")[0] for note in notes] == [
        "The map of doubt is of another reconstruction",
        "Doubt is not calibrated",
    ]
    assert "<dt>xr2ct_doubt_calibrated</dt><dd>no</dd>" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/nowhere.mha"], "/nowhere.mha: no such file"),
        (["{0}/page one.html"], "expected one of .nii"),
        (["{0}/angle_000.mha"], "expected one 3D volume"),
        (["{0}/unit.mha"], "are not HU"),
        (["{0}/cube.npy"], "--cube-mm"),
        (["{0}/made.mha", "--cube-mm", "320"], "--cube-mm is the side of a .npy"),
        (["{0}/made.mha", "--doubt", "{0}/small.mha"], "small.mha: the map of doubt has 10 × 10 × 10 voxels"),
        (["{0}/made.mha", "--doubt", "{0}/moved.mha"], "begins at"),
        (["{0}/made.mha", "--unseen", "{0}/none.mha"], "none.mha: no such file"),
        (["{0}/made.mha", "--truth", "{0}/small.mha"], "the true CT has 10 × 10 × 10"),
        (["{0}/made.mha", "--xray", "AP={0}/bare.npy"], "bare.npy: does not say how the X-ray was taken"),
        (["{0}/made.mha", "--xray", "AP={0}/made.mha"], "has no sad_mm"),
        (["{0}/made.mha", "--xray", "AP={0}/angle_090.mha"], "is the view at 90°, given as 0°"),
        (["{0}/made.mha", "--xray", "{0}/angle_090.mha"], "expected ANGLE=FILE"),
        (["{0}/made.mha", "--xray", "front={0}/angle_090.mha"], "angle 'front'"),
        (["{0}/made.mha", *2 * ["--xray", "90={0}/angle_090.mha"]], "given twice"),
        (["{0}/made.mha", "--geometry", "x2tc"], "did you mean 'x2ct'"),
        (["{0}/made.mha", "--max-size", "0"], "expected a whole number above 0"),
        (["{0}/made.mha", "--out", "{0}"], "expected the name of an HTML file"),
    ],
)
def test_a_wrong_request(
    arguments: list[str], told: str, folder: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient.write(folder / "moved.mha", patient.doubt(), offset_mm=3.0)
    patient.write(folder / "small.mha", -np.ones((10, 10, 10), np.int16))
    patient.write(folder / "unit.mha", patient.doubt() / 1000)
    np.save(folder / "cube.npy", patient.body())
    np.save(folder / "bare.npy", np.zeros((64, 64), np.float32))
    given = [argument.replace("{0}", str(folder)) for argument in arguments]
    out = [] if "--out" in given else ["--out", str(folder / "wrong.html")]
    assert main(["view", *given, *out]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) <= 2
    assert not (folder / "wrong.html").exists()


def test_a_cube_without_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `reconstruct --out x.npy` leaves; the page lies beside it."""
    np.save(tmp_path / "x.npy", patient.body()[:20, :20, :20])
    assert main(["view", str(tmp_path / "x.npy"), "--cube-mm", "100"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "x.html")
    assert '"spacing": [5.0, 5.0, 5.0], "first": [-47.5, -47.5, -47.5]' in (tmp_path / "x.html").read_text()
    with pytest.raises(UserError, match="expected a cube"):
        np.save(tmp_path / "y.npy", patient.body())
        read_hu(tmp_path / "y.npy", 100.0)
