"""Where source and detector are, and names for that."""

from __future__ import annotations

import pytest

from xr2ct.errors import UserError
from xr2ct.projection.geometry import (
    NAMED,
    VIEW_ANGLES,
    Geometry,
    column_direction,
    mirror_angle,
    named_geometry,
    parse_angle,
    source_direction,
)


@pytest.mark.parametrize(
    ("view", "source", "columns"),
    [
        ("AP", (0, -1, 0), (1, 0, 0)),  # in front; columns towards the patient's left
        (
            "RLAT",
            (1, 0, 0),
            (0, 1, 0),
        ),  # at the left, the right side against the detector; columns to the back
        ("PA", (0, 1, 0), (-1, 0, 0)),
        ("LLAT", (-1, 0, 0), (0, -1, 0)),
    ],
)
def test_named_views(
    view: str, source: tuple[float, float, float], columns: tuple[float, float, float]
) -> None:
    assert source_direction(VIEW_ANGLES[view]) == pytest.approx(source, abs=1e-12)
    assert column_direction(VIEW_ANGLES[view]) == pytest.approx(columns, abs=1e-12)


def test_what_the_papers_detector_sees() -> None:
    geometry = NAMED["x2ct"]
    assert geometry.magnification == pytest.approx(1.754, abs=1e-3)
    assert geometry.detector_mm / geometry.magnification == pytest.approx(285, abs=0.1)
    assert Geometry(**geometry.as_attributes()) == geometry


@pytest.mark.parametrize(
    ("text", "angle"), [("0", 0), ("ap", 0), ("LLAT", 270), ("-90", 270), ("22.5", 22.5), ("360", 0)]
)
def test_angles(text: str, angle: float) -> None:
    assert parse_angle(text) == angle


@pytest.mark.parametrize("text", ["", "front", "nan", "inf"])
def test_no_angles(text: str) -> None:
    with pytest.raises(UserError, match="expected degrees or one of AP, RLAT, PA, LLAT"):
        parse_angle(text)


def test_mirrored() -> None:
    assert [mirror_angle(a) for a in (0.0, 45.0, 90.0, 180.0)] == [0.0, 315.0, 270.0, 180.0]


def test_wrong_geometries() -> None:
    with pytest.raises(UserError, match="did you mean 'x2ct'"):
        named_geometry("x2-ct")
    with pytest.raises(UserError, match="0 < sad_mm < sid_mm, got 949"):
        Geometry("swapped", sad_mm=949.0, sid_mm=541.0, detector_mm=500.0)
    with pytest.raises(UserError, match="positive detector_mm"):
        Geometry("none", sad_mm=541.0, sid_mm=949.0, detector_mm=0.0)
