"""X-ray pictures: their scale, their files, and files that are not what they are given as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from xr2ct.errors import UserError
from xr2ct.projection.geometry import NAMED, Geometry
from xr2ct.projection.views import angle_name, read_view, scale_views, write_views

SMALL = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)


@pytest.fixture
def pictures() -> np.ndarray:
    """Two views (view, row, col), bright at the head's end and on the right."""
    row, col = np.mgrid[:32, :32]
    return np.stack([7.5 - row * 0.2 + col * 0.01, 3.0 - row * 0.05 + col * 0.02]).astype(np.float32)


class TestScale:
    def test_each_view_by_its_own_maximum(self, pictures: np.ndarray) -> None:
        scaled = scale_views(pictures.astype(np.float64), "max")
        assert scaled.dtype == np.float32
        np.testing.assert_array_equal(scaled.max(axis=(1, 2)), [1, 1])
        np.testing.assert_allclose(scaled * pictures.max(axis=(1, 2), keepdims=True), pictures, rtol=1e-6)

    def test_all_by_one_line_integral_and_any_leading_axes(self, pictures: np.ndarray) -> None:
        np.testing.assert_allclose(scale_views(pictures[None], 5.0)[0], pictures / 5, rtol=1e-6)

    def test_an_empty_view_stays_empty(self) -> None:
        assert not scale_views(np.zeros((2, 4, 4)), "max").any()

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
    def test_no_other_scale(self, scale: float) -> None:
        with pytest.raises(UserError, match="above 0"):
            scale_views(np.ones((1, 2, 2)), scale)


class TestFiles:
    def test_mha_holds_line_integrals_head_first_with_pitch_and_geometry(
        self, pictures: np.ndarray, tmp_path: Path
    ) -> None:
        files = write_views(tmp_path / "new", pictures, [0.0, 90.0], SMALL)

        names = ["angle_000.mha", "angle_000.png", "angle_090.mha", "angle_090.png"]
        assert [f.name for f in files] == names
        image = sitk.ReadImage(str(files[2]))
        assert image.GetPixelID() == sitk.sitkFloat32
        assert image.GetSpacing() == (500 / 32, 500 / 32)
        assert image.GetMetaData("sad_mm") == "541.0"
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), pictures[1])
        np.testing.assert_array_equal(read_view(files[2], 90.0, SMALL), pictures[1])

    def test_png_is_bones_white_and_reads_back_with_its_scale(
        self, pictures: np.ndarray, tmp_path: Path
    ) -> None:
        files = write_views(tmp_path, pictures, [0.0, 90.0], SMALL)
        scale = float(sitk.ReadImage(str(files[0])).GetMetaData("png_white"))
        assert scale == pytest.approx(pictures.max(), rel=1e-5)
        for picture, file, angle in zip(pictures, files[1::2], (0.0, 90.0), strict=True):
            grey = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            assert grey[0, -1] == grey.max()
            np.testing.assert_allclose(read_view(file, angle, SMALL, scale), picture, atol=scale / 60000)

    def test_eight_bit_png_and_npy(self, pictures: np.ndarray, tmp_path: Path) -> None:
        grey = np.full((32, 32), 51, np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(tmp_path / "a.png"))
        np.testing.assert_allclose(read_view(tmp_path / "a.png", 0.0, SMALL, 10.0), 2.0, rtol=1e-6)
        np.save(tmp_path / "a.npy", pictures[0].astype(np.float64))
        view = read_view(tmp_path / "a.npy", 0.0, SMALL)
        assert view.dtype == np.float32
        np.testing.assert_array_equal(view, pictures[0])

    @pytest.mark.parametrize(
        ("angle", "name"),
        [(0.0, "angle_000"), (45.0, "angle_045"), (22.5, "angle_022.5"), (315.0, "angle_315"),
         (10.0, "angle_010"), (100.0, "angle_100"), (-90.0, "angle_270"), (360.0, "angle_000")],
    )  # fmt: skip
    def test_names(self, angle: float, name: str) -> None:
        assert angle_name(angle) == name


class TestRefused:
    def refuse(self, file: Path, match: str, angle: float = 0.0, geometry: Geometry = SMALL) -> None:
        with pytest.raises(UserError, match=match) as caught:
            read_view(file, angle, geometry)
        assert str(file) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1

    def test_another_geometry_angle_size_or_pitch(self, pictures: np.ndarray, tmp_path: Path) -> None:
        file, *_ = write_views(tmp_path, pictures[:1], [0.0], SMALL)
        chest = Geometry("chest", sad_mm=1600.0, sid_mm=1800.0, detector_mm=430.0, pixels=32)
        self.refuse(file, "sad_mm 541, not 1600; sid_mm 949, not 1800", geometry=chest)
        self.refuse(file, "is the view at 0°, given as 90°", angle=90.0)
        self.refuse(file, "expected 256×256 pixels, got 32×32", geometry=NAMED["x2ct"])
        bare = sitk.GetImageFromArray(pictures[0])
        bare.SetSpacing((0.5, 0.5))
        sitk.WriteImage(bare, str(tmp_path / "bare.mha"))
        self.refuse(tmp_path / "bare.mha", "pixels of 0.5×0.5 mm; 32 columns .* are 15.625 mm each")

    def test_a_png_without_its_scale(self, pictures: np.ndarray, tmp_path: Path) -> None:
        _, png = write_views(tmp_path, pictures[:1], [0.0], SMALL)
        self.refuse(png, "a PNG needs its scale stated")
        with pytest.raises(UserError, match="scale above 0"):
            read_view(png, 0.0, SMALL, 0.0)

    def test_what_is_no_picture(self, tmp_path: Path) -> None:
        self.refuse(tmp_path / "none.mha", "no such file")
        self.refuse(tmp_path / "x.tiff", r"expected an X-ray as \.mha, \.npy, \.png")
        for name in ("text.mha", "text.png"):
            (tmp_path / name).write_text("not an image")
            self.refuse(tmp_path / name, "cannot be read|a PNG needs")
        (tmp_path / "text.npy").write_text("not an array")
        self.refuse(tmp_path / "text.npy", "cannot be read")
        np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
        self.refuse(tmp_path / "object.npy", "cannot be read")
        np.save(tmp_path / "cube.npy", np.zeros((32, 32, 32)))
        self.refuse(tmp_path / "cube.npy", "expected 32×32 pixels, got 32×32×32")
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 32, 32), np.float32)), str(tmp_path / "cube.mha"))
        self.refuse(tmp_path / "cube.mha", "one grey picture")
        colour = sitk.GetImageFromArray(np.zeros((32, 32, 3), np.uint8), isVector=True)
        sitk.WriteImage(colour, str(tmp_path / "colour.png"))
        with pytest.raises(UserError, match="one grey picture"):
            read_view(tmp_path / "colour.png", 0.0, SMALL, 1.0)
        np.save(tmp_path / "nan.npy", np.full((32, 32), np.nan))
        self.refuse(tmp_path / "nan.npy", "not finite")
