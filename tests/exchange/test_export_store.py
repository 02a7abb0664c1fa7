"""Files of a store's cases: the same voxels in the same place, whole folders, the same call again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from xr2ct import __version__
from xr2ct.cohorts.reader import read_volume_file
from xr2ct.errors import UserError
from xr2ct.exchange import export
from xr2ct.exchange.export import export_store
from xr2ct.exchange.volumes import volume_header
from xr2ct.projection.views import read_view
from xr2ct.store import Store, StoreError, layout


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stamps(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != "cases.csv"}


@pytest.mark.parametrize(("format", "name"), [("nifti", "ct.nii.gz"), ("mha", "ct.mha")])
class TestVolumes:
    def test_voxels_lie_where_the_patient_did(self, store, tmp_path, format, name):
        done = export_store(store.path, tmp_path / "out", format)
        assert (done.written, done.kept) == (("P-1", "P-2", "P-3"), ())
        truth = store.volume(store.cases[1], 64)
        image = sitk.ReadImage(str(tmp_path / "out" / "P-2" / name))
        assert image.GetPixelIDTypeAsString() == "16-bit signed integer"
        assert np.array_equal(sitk.GetArrayFromImage(image), truth)
        assert image.GetSpacing() == pytest.approx((5.0,) * 3)
        assert image.GetDirection() == pytest.approx((1, 0, 0, 0, 1, 0, 0, 0, 1))
        # LPS: the voxel that counts up in x, y and z lies to the left, back and head of the isocentre.
        assert image.TransformContinuousIndexToPhysicalPoint((31.5,) * 3) == pytest.approx(
            (0, 0, 0), abs=1e-4
        )
        assert image.TransformIndexToPhysicalPoint((63, 0, 40)) == pytest.approx(
            (157.5, -157.5, 42.5), abs=1e-4
        )

    def test_our_own_reader_sees_the_same(self, store, tmp_path, format, name):
        export_store(store.path, tmp_path / "out", format, size=32, cases=["P-1"])
        native = read_volume_file(tmp_path / "out" / "P-1" / name)
        assert np.array_equal(native.hu, store.volume(store.cases[0], 32))
        assert native.spacing_mm == pytest.approx((10.0,) * 3)


def test_a_nifti_header_says_ras(store, tmp_path):
    """Read as other programs do, without ITK: NIfTI's first two axes point to the right and the front."""
    export_store(store.path, tmp_path / "out", "nifti", cases=["P-1"])
    header = __import__("gzip").open(tmp_path / "out" / "P-1" / "ct.nii.gz").read(348)
    rows = np.frombuffer(header[280:328], "<f4").reshape(3, 4)
    assert rows == pytest.approx(
        np.array([[-5, 0, 0, 157.5], [0, -5, 0, 157.5], [0, 0, 5, -157.5]]), abs=1e-4
    )


class TestViews:
    def test_line_integrals_as_project_writes_them(self, store, tmp_path):
        export_store(store.path, tmp_path / "out", "mha", cases=["P-2"])
        for angle in (0.0, 90.0, 180.0, 270.0):
            file = tmp_path / "out" / "P-2" / f"angle_{angle:03.0f}.mha"
            geometry = store.geometries["x2ct"]
            assert np.array_equal(
                read_view(file, angle, geometry), store.xray(store.cases[1], "x2ct", [angle])[0]
            )


class TestChoice:
    def test_by_split_by_name_and_none_excluded(self, store, tmp_path):
        assert export_store(store.path, tmp_path / "a", "mha", split="test").written == ("P-2", "P-3")
        layout.exclude_file(store.path).write_text("case,reason\nP-3,table\n")
        assert export_store(store.path, tmp_path / "b", "mha").written == ("P-1", "P-2")
        with pytest.raises(UserError, match=r"P-3 is excluded by .*exclude\.csv"):
            export_store(store.path, tmp_path / "b", "mha", cases=["P-3"])

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            ({"size": 128}, "no volumes of size 128 .valid: 32, 64"),
            ({"geometry": "x2c"}, "did you mean 'x2ct'"),
            ({"cases": ["P-11"]}, "did you mean 'P-1'"),
            ({"split": "tests"}, "did you mean 'test'"),
            ({"split": "train", "cases": ["P-2"]}, "none of those cases is in the train split"),
            ({"format": "nift"}, "did you mean 'nifti'"),
        ],
    )
    def test_what_is_not_there(self, store, tmp_path, keys, told):
        with pytest.raises(UserError, match=told):
            export_store(store.path, tmp_path / "out", **{"format": "mha", **keys})
        assert not (tmp_path / "out").exists()


class TestAgain:
    def test_what_is_there_stays(self, store, tmp_path):
        out = tmp_path / "out"
        export_store(store.path, out, "mha", cases=["P-1"])
        before = stamps(out)
        done = export_store(store.path, out, "mha")
        assert (done.written, done.kept) == (("P-2", "P-3"), ("P-1",))
        assert before.items() <= stamps(out).items()
        assert [row["case"] for row in table(out)] == ["P-1", "P-2", "P-3"]
        assert table(out)[0]["spacing_mm"] == "5"

    def test_another_size_or_other_chunks_replace_it(self, store, tmp_path):
        out = tmp_path / "out"
        export_store(store.path, out, "mha")
        assert export_store(store.path, out, "mha", size=32).written == ("P-1", "P-2", "P-3")
        assert {row["size"] for row in table(out)} == {"32"}

    def test_stopped_in_a_case_it_goes_on(self, store, tmp_path, monkeypatch):
        out = tmp_path / "out"
        write = export.write_volume

        def stop(hu, cube_mm, path, header):
            write(hu, cube_mm, path, header)
            if "P-2" in str(path):
                raise KeyboardInterrupt

        monkeypatch.setattr(export, "write_volume", stop)
        with pytest.raises(KeyboardInterrupt):
            export_store(store.path, out, "mha")
        assert not (out / "P-2").exists()
        monkeypatch.setattr(export, "write_volume", write)
        assert export_store(store.path, out, "mha").written == ("P-2", "P-3")
        assert sorted(p.name for p in out.iterdir()) == ["P-1", "P-2", "P-3", "cases.csv"]


class TestInTheWay:
    def test_a_strangers_folder_is_not_touched(self, store, tmp_path):
        (tmp_path / "out" / "P-2").mkdir(parents=True)
        (tmp_path / "out" / "P-2" / "thesis.txt").touch()
        with pytest.raises(UserError, match="in the way"):
            export_store(store.path, tmp_path / "out", "mha")
        assert (tmp_path / "out" / "P-2" / "thesis.txt").exists()

    def test_not_into_the_store_nor_over_a_file(self, store, tmp_path):
        with pytest.raises(UserError, match="inside the store"):
            export_store(store.path, store.path / "out", "mha")
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="expected a folder"):
            export_store(store.path, tmp_path / "file", "mha")

    def test_a_damaged_chunk_names_its_case(self, store, tmp_path):
        layout.chunk_file(store.path, "ct/64", 1).unlink()
        with pytest.raises(StoreError, match="P-2"):
            export_store(store.path, tmp_path / "out", "mha")
        assert not (tmp_path / "out" / "P-2").exists()


def test_nothing_leaves_that_the_store_keeps_to_itself(store, tmp_path):
    export_store(store.path, tmp_path / "out", "mha", cases=["P-1"])
    about = json.loads((tmp_path / "out" / "P-1" / "case.json").read_text())
    assert not {"study", "series", "row"} & set(about)
    assert (about["kernel"], about["cohort"], about["split"]) == ("B30f", "lctsc", "train")


def test_a_store_without_xrays_gives_volumes(store, tmp_path):
    attributes = json.loads((store.path / "zarr.json").read_text())
    attributes["attributes"]["geometries"] = []
    (store.path / "zarr.json").write_text(json.dumps(attributes))
    shutil.rmtree(store.path / "xray")
    assert not Store.open(store.path).geometries
    export_store(store.path, tmp_path / "out", "nifti", cases=["P-1"])
    assert sorted(p.name for p in (tmp_path / "out" / "P-1").iterdir()) == ["case.json", "ct.nii.gz"]
    with pytest.raises(UserError, match="no X-rays"):
        export_store(store.path, tmp_path / "h5", "x2ct")


def test_files_say_which_case_they_are(store, tmp_path):
    case = store.cases[0]
    told = {"xr2ct_version": __version__, "xr2ct_cohort": "lctsc", "xr2ct_case": case.id}
    for format, name in (("nifti", "ct.nii.gz"), ("mha", "ct.mha")):
        export_store(store.path, tmp_path / format, format, cases=[case.id])
        folder, sums = tmp_path / format / case.id, case.attributes["checksums"]
        assert volume_header(folder / name) == told | {"xr2ct_chunk_sha256": sums["ct/64"]}
        x_ray = volume_header(folder / "angle_090.mha")
        assert x_ray == told | {"xr2ct_chunk_sha256": sums["xray/x2ct"]}
