"""X2CT's layout out and in: values, axes, the way back to the same cube, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import find_sources
from xr2ct.errors import UserError
from xr2ct.exchange.export import export_store
from xr2ct.exchange.x2ct import FILE, read_x2ct, write_x2ct, x2ct_spacing
from xr2ct.ingest import ingest
from xr2ct.projection.geometry import NAMED, Geometry
from xr2ct.store import Store

VIEWS = np.ones((2, 8, 8), np.float32)


@pytest.fixture
def exported(store, tmp_path):
    export_store(store.path, tmp_path / "out", "x2ct")
    return tmp_path / "out"


@pytest.fixture
def h5(tmp_path):
    """Writes a file with these datasets and attributes."""

    def write(attributes=(), **datasets):
        path = tmp_path / FILE
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                file[name] = values
            file.attrs.update(dict(attributes))
        return path

    return write


def test_values_are_as_stated(store, exported):
    hu = store.volume(store.cases[0], 64)
    frontal, lateral = store.xray(store.cases[0], "x2ct", [0.0, 90.0])
    with h5py.File(exported / "P-1" / FILE) as file:
        assert set(file) == {"ct", "xray1", "xray2"}
        assert file["ct"].dtype == np.int16
        assert np.array_equal(file["ct"][...], hu + 1024)
        for name, view, peak in zip(
            ("xray1", "xray2"), (frontal, lateral), file.attrs["xray_max"], strict=True
        ):
            assert file[name].dtype == np.float32
            assert file[name][...].max() == 255.0
            assert file[name][...] / 255 * peak == pytest.approx(view, rel=1e-6)
        assert list(file.attrs["angles_deg"]) == [0.0, 90.0]
        assert (file.attrs["cube_mm"], file.attrs["geometry"], file.attrs["sid_mm"]) == (320.0, "x2ct", 949.0)


@pytest.mark.parametrize("extreme", [-1024, 3071, 31743])
def test_hu_come_back_as_they_were(tmp_path, extreme):
    hu = np.random.default_rng(0).integers(-1024, 3072, (16, 16, 16)).astype(np.int16)
    hu[3, 4, 5] = extreme
    write_x2ct(tmp_path / FILE, hu, 320.0, VIEWS, (0.0, 90.0), NAMED["x2ct"])
    assert np.array_equal(read_x2ct(tmp_path / FILE).hu, hu)


def test_what_lies_beyond_is_clipped_as_stated(tmp_path):
    hu = np.full((16, 16, 16), 40, np.int16)
    hu[0, 0, :2] = -2000, 32000
    write_x2ct(tmp_path / FILE, hu, 320.0, VIEWS, (0.0, 90.0), NAMED["x2ct"])
    assert read_x2ct(tmp_path / FILE).hu[0, 0, :2].tolist() == [-1024, 31743]


class TestIngestedAgain:
    def test_patients_are_the_folders(self, exported):
        sources, refusals = find_sources(exported)
        assert [s.patient for s in sources] == ["P-1", "P-2", "P-3"]
        assert {s.kind for s in sources} == {"x2ct"}
        assert not refusals

    def test_the_cube_comes_back_to_the_bit(self, store, exported):
        (first, *_), _ = find_sources(exported)
        canonical = canonical_cubes(read_volume(first), [64])
        assert np.array_equal(canonical.cubes[64], store.volume(store.cases[0], 64))
        assert canonical.centre_mm == pytest.approx((157.5,) * 3)
        assert canonical.body_outside_cube == pytest.approx(0.0)

    @pytest.mark.slow
    def test_a_store_made_of_it_holds_the_same_volumes(self, store, exported, tmp_path, monkeypatch):
        (tmp_path / "own.yaml").write_text("ward: {public: true, splits: test}\n")
        monkeypatch.setenv("XR2CT_COHORTS", str(tmp_path / "own.yaml"))
        for other in ("P-1", "P-3"):
            shutil.rmtree(exported / other)
        small = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=16)
        ingest(exported, tmp_path / "ward.zarr", "ward", [64], geometries=[small], angles=[0.0], workers=1)
        again = Store.open(tmp_path / "ward.zarr")
        (case,) = again.cases
        assert case.id == "P-2"
        assert np.array_equal(again.volume(case, 64), store.volume(store.cases[1], 64))

    def test_centred_anew_it_would_not(self, store, exported):
        (first, *_), _ = find_sources(exported)
        anew = canonical_cubes(replace(read_volume(first), centre_mm=None), [64])
        assert np.abs(np.subtract(anew.centre_mm, 157.5)).max() > 1
        assert not np.array_equal(anew.cubes[64], store.volume(store.cases[0], 64))

    def test_other_sizes_are_resampled_about_the_same_centre(self, exported):
        (first, *_), _ = find_sources(exported)
        native = read_volume(first)
        half = canonical_cubes(native, [32]).cubes[32]
        blocks = native.hu.reshape(32, 2, 32, 2, 32, 2).mean(axis=(1, 3, 5))
        assert np.abs(half - blocks).mean() < 0.1 * blocks.std()

    def test_float_cubes_are_rounded(self, h5, store):
        hu = store.volume(store.cases[0], 64)
        native = read_x2ct(h5(ct=hu.astype(np.float32) + 1024.25))
        assert np.array_equal(canonical_cubes(native, [64]).cubes[64], hu)


class TestFilesOfOthers:
    def test_without_attributes_a_cube_of_320_mm(self, h5):
        path = h5(ct=np.full((40, 40, 40), 1064, np.uint16))
        native = read_x2ct(path)
        assert native.spacing_mm == (8.0, 8.0, 8.0)
        assert np.unique(native.hu).tolist() == [40]
        assert x2ct_spacing(path) == (40, 8.0)

    @pytest.mark.parametrize(
        ("datasets", "attributes", "reason"),
        [
            ({"image": np.zeros(3)}, {}, "no dataset 'ct' .it holds image"),
            ({"ct": np.zeros((4, 5, 6), np.int16)}, {}, "4×5×6 of int16; expected a cube"),
            ({"ct": np.zeros((8, 8), np.int16)}, {}, "expected a cube"),
            ({"ct": np.zeros((0, 0, 0), np.int16)}, {}, "0×0×0 of int16; expected a cube"),
            ({"ct": np.int16(5)}, {}, "a single value of int16"),
            ({"ct": np.full((8, 8, 8), -1000, np.int16)}, {}, "from -1000 to -1000"),
            ({"ct": np.linspace(0, 1, 512).reshape(8, 8, 8)}, {}, "from 0 to 1"),
            ({"ct": np.full((8, 8, 8), 255, np.uint8)}, {}, "from 255 to 255"),
            ({"ct": np.full((8, 8, 8), np.nan)}, {}, "not finite"),
            ({"ct": np.full((8, 8, 8), 10**6)}, {}, "1e[+]06"),
            ({"ct": np.full((8, 8, 8), 1064)}, {"cube_mm": -3.0}, "cube_mm is -3"),
            ({"ct": np.full((8, 8, 8), 1064)}, {"cube_mm": "wide"}, "cannot be read"),
            ({"ct": np.full((8, 8, 8), b"x")}, {}, "expected a cube of numbers"),
        ],
    )
    def test_what_is_no_such_cube_is_refused(self, h5, datasets, attributes, reason):
        with pytest.raises(Refused, match=reason):
            read_x2ct(h5(attributes, **datasets))

    def test_a_claim_of_giant_size_is_not_believed(self, tmp_path):
        with h5py.File(tmp_path / FILE, "w") as file:
            file.create_dataset("ct", (20000,) * 3, np.int16, chunks=(16, 16, 16))
        with pytest.raises(Refused, match="at most 1024 a side"):
            read_x2ct(tmp_path / FILE)

    def test_what_is_no_hdf5_is_refused(self, tmp_path):
        path = tmp_path / FILE
        for content in (b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(40)):
            path.write_bytes(content)
            with pytest.raises(Refused, match="cannot be read"):
                read_x2ct(path)
            with pytest.raises(ValueError, match="cannot be read"):
                x2ct_spacing(path)

    def test_a_file_cut_short_is_refused(self, h5):
        path = h5(ct=np.full((40, 40, 40), 1064, np.int16))
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(Refused, match="cannot be read"):
            read_x2ct(path)


def test_views_from_behind_and_the_other_side_do(store, tmp_path, monkeypatch):
    monkeypatch.setattr(type(store), "angles", lambda self, name: (180.0, 270.0, 45.0))
    export_store(store.path, tmp_path / "out", "x2ct", cases=["P-1"])
    with h5py.File(tmp_path / "out" / "P-1" / FILE) as file:
        assert list(file.attrs["angles_deg"]) == [180.0, 270.0]
    monkeypatch.setattr(type(store), "angles", lambda self, name: (0.0, 45.0))
    with pytest.raises(UserError, match="no view at 90° or 270°, only at 0°, 45°"):
        export_store(store.path, tmp_path / "b", "x2ct")
