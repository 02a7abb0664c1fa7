"""X-ray files of a CT and of a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from xr2ct.errors import UserError
from xr2ct.projection.export import export_views
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import read_view
from xr2ct.store import write
from xr2ct.store.layout import XraySet

GEOMETRY = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=24)


def write_ct(file: Path) -> None:
    """Water in air with a bead at the left, front and head; stored back to front, far from its origin."""
    hu = np.full((30, 24, 40), -1000, np.int16)
    hu[:, 8:16] = 0
    hu[24, 9, 30] = 3000
    image = sitk.GetImageFromArray(hu[:, ::-1].copy())
    image.SetSpacing((10.0, 10.0, 8.0))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((-500.0, 900.0, 33.0))
    sitk.WriteImage(image, str(file))


def test_a_ct_is_projected_whole_about_its_centre(tmp_path: Path) -> None:
    write_ct(tmp_path / "ct.mha")

    files = export_views(tmp_path / "ct.mha", GEOMETRY, [0.0, 90.0], tmp_path / "out")

    assert [f.name for f in files] == ["angle_000.mha", "angle_000.png", "angle_090.mha", "angle_090.png"]
    frontal, lateral = (read_view(f, a, GEOMETRY) for f, a in zip(files[::2], (0.0, 90.0), strict=True))
    # 80 mm of water from front to back on the whole detector: nothing was cropped at its sides.
    middle = frontal[12, :]
    assert middle.min() == pytest.approx(0.02 * 80, rel=0.05)
    assert middle.max() < 0.02 * 80 * 1.05  # an oblique ray is longer
    # From the patient's left, 400 mm of water, and air before and behind it.
    assert lateral[12, 12] == pytest.approx(0.02 * 400, rel=0.01)
    assert lateral[12, 0] == lateral[12, -1] == 0
    # The bead: near the head in both, on the right of the frontal picture, in front in the lateral.
    bead = frontal - np.median(frontal)
    row, column = np.unravel_index(bead.argmax(), bead.shape)
    assert row < 8
    assert column > 15
    row, column = np.unravel_index((lateral - lateral[12:13]).argmax(), lateral.shape)
    assert row < 8
    assert column < 12


def test_a_store_gives_the_views_that_it_holds(tmp_path: Path) -> None:
    store, views = tmp_path / "lidc-idri.zarr", np.random.default_rng(0).random((2, 2, 24, 24), np.float32)
    xrays = XraySet(GEOMETRY, (0.0, 90.0))
    write.lay_out(store, "lidc-idri", 320.0, 2, [], [xrays])
    for row, case in enumerate(("a", "b")):
        checksums = {"xray/small": write.write_chunk(store, "xray/small", row, views[row])}
        write.write_case(store, case, {"checksums": checksums})
    rows = [{"id": c, "patient": c, "split": "test", "row": r} for r, c in enumerate("ab")]
    write.publish(store, rows, [], ["small"])

    files = export_views(store, GEOMETRY, [90.0], tmp_path / "out")
    assert [str(f.relative_to(tmp_path / "out")) for f in files[::2]] == [
        "a/angle_090.mha",
        "b/angle_090.mha",
    ]
    np.testing.assert_array_equal(read_view(files[2], 90.0, GEOMETRY), views[1, 1])
    only = export_views(store, GEOMETRY, [0.0], tmp_path / "one", case="b")
    np.testing.assert_array_equal(read_view(only[0], 0.0, GEOMETRY), views[1, 0])

    with pytest.raises(UserError, match="no case 'c'"):
        export_views(store, GEOMETRY, [0.0], tmp_path / "none", case="c")
    other = Geometry("small", sad_mm=600.0, sid_mm=949.0, detector_mm=500.0, pixels=24)
    with pytest.raises(UserError, match=r"sad_mm=541\.0.*not of.*sad_mm=600\.0"):
        export_views(store, other, [0.0], tmp_path / "none")


def test_a_ct_has_no_cases(tmp_path: Path) -> None:
    write_ct(tmp_path / "ct.mha")
    with pytest.raises(UserError, match="not a store"):
        export_views(tmp_path / "ct.mha", GEOMETRY, [0.0], tmp_path / "out", case="a")


def test_the_real_chest_as_a_dicom_folder(real_data: Path, tmp_path: Path) -> None:
    """The heart's apex points to the patient's left: right in an AP picture, left in a PA one."""
    source = real_data / "chest" / "LIDC-IDRI-0001"
    geometry = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=64)
    files = export_views(source, geometry, [0.0, 180.0], tmp_path)
    ap, pa = (read_view(f, a, geometry) for f, a in zip(files[::2], (0.0, 180.0), strict=True))
    heights = slice(26, 34)  # the heart, above the diaphragm
    for view, apex, other in ((ap, slice(36, 46), slice(16, 26)), (pa, slice(18, 28), slice(38, 48))):
        assert view[heights, apex].mean() > 1.15 * view[heights, other].mean()
    assert ap[50:].mean() > ap[:20].mean()  # the belly is below the lungs
