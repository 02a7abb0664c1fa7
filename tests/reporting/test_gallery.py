"""A gallery comes back whole from its source, small, and its CSV says what each picture is."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from xr2ct.reporting import pictures
from xr2ct.reporting.gallery import Gallery

RAMP = np.linspace(-1200, 600, 64 * 64).reshape(64, 64)
GALLERY = Gallery(
    "g",
    "Title",
    "caption",
    ("CT", "a system with a name too long for a single line"),
    ("lidc-idri, frontal", "lctsc, frontal"),
    (
        (pictures.grey(RAMP, -1000, 400, "20.00 dB"), pictures.signed(RAMP, 500)),
        (pictures.heat(np.abs(RAMP) * 1e-9, 6e-7), None),
    ),
)


def again(gallery: Gallery) -> Gallery:
    values, arrays = gallery.source()
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    packed.seek(0)
    return Gallery.from_source(json.loads(json.dumps(values)), dict(np.load(packed)))


def test_its_source_draws_the_same_bytes() -> None:
    assert again(GALLERY).files() == GALLERY.files()


def test_shares_of_the_window_keep_small_magnitudes_and_stay_finite() -> None:
    heat = again(GALLERY).pictures[1][0]
    assert heat is not None
    assert np.allclose(heat.shares.astype(float) * heat.high, np.abs(RAMP) * 1e-9, rtol=1e-3, atol=1e-12)
    assert np.isfinite(pictures.grey(np.array([[1e9, -1e9]]), 0, 1).shares).all()
    assert np.isfinite(pictures.grey(np.zeros((2, 2)), 0, 0).shares).all()


def test_the_csv_says_what_each_picture_is() -> None:
    rows = list(csv.DictReader(io.StringIO(GALLERY.files()["csv"].decode())))
    assert [(r["row"], r["column"][:2], r["colours"]) for r in rows] == [
        ("lidc-idri, frontal", "CT", "grey"),
        ("lidc-idri, frontal", "a ", "signed"),
        ("lctsc, frontal", "CT", "heat"),
    ]
    assert rows[0]["note"] == "20.00 dB" and rows[0]["pixels"] == "64×64"


def test_pixels_are_square_and_each_picture_is_its_own() -> None:
    wide = Gallery(
        "w", "", "", ("a", "b"), ("",), ((pictures.grey(RAMP[:16], 0, 1), pictures.grey(RAMP, 0, 1)),)
    )
    left, right, bottom, top = wide._draw().axes[0].get_images()[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(4)
    assert wide.files()["svg"].count(b"<image") == 2


def test_an_empty_place_has_no_picture_and_no_text_lies_outside() -> None:
    figure = GALLERY._draw()
    (axes,) = figure.axes
    assert len(axes.get_images()) == 3
    figure.draw_without_rendering()
    whole = figure.bbox
    for text in axes.texts:
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
