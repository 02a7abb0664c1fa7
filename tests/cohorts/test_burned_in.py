"""Text is found whatever its size, font, place, polarity and compression; bones, wires, rulers are none."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from xr2ct.cohorts.burned_in import burned_in_text, find_lines
from xr2ct.cohorts.phantom import synthetic_chest
from xr2ct.seeds import generator

FONTS = [
    Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    for name in ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif-Italic", "cmr10")
]
LINES = ("DOE^JOHN 12.03.1964", "St. Mary Hospital", "ID: 4711832 M 045Y", "nguyen van an")
TOP = 4095
SIDE = 800


@pytest.fixture(scope="module")
def chests() -> list[np.ndarray]:
    """Two views of a synthetic chest by parallel rays, as line integrals, and each exposed."""
    volume = synthetic_chest(5, "lidc-idri")
    mu = 0.02 * np.maximum(1 + volume.hu[::-1].astype(np.float32) / 1000, 0)
    views = []
    for axis in (1, 2):
        integrals = mu.sum(axis) * volume.spacing_mm[axis]
        side = tuple(SIDE / n for n in integrals.shape)
        integrals = ndimage.zoom(integrals, side, order=1)
        exposed = np.exp(-0.7 * integrals)
        views += [0.85 * integrals / integrals.max(), 0.9 * exposed / exposed.max()]
    return views


def _picture(chests: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    view = chests[rng.integers(len(chests))] + rng.normal(0, 0.004, (SIDE, SIDE))
    return np.clip(view * TOP, 0, TOP).astype(np.uint16)


def _drawn(picture: np.ndarray, drawing: Image.Image, value: int) -> np.ndarray:
    share = np.asarray(drawing) / 255.0
    return np.round(picture * (1 - share) + value * share).astype(np.uint16)


def _lossy(picture: np.ndarray, quality: int) -> np.ndarray:
    """As after JPEG at 8 bits; 0 is lossless."""
    if not quality:
        return picture
    file = io.BytesIO()
    Image.fromarray((picture / TOP * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return (np.asarray(Image.open(file)) / 255 * TOP).astype(np.uint16)


def _with_text(picture: np.ndarray, lines: list[str], size: int, font: Path, seed: int) -> np.ndarray:
    """Lines at a corner or anywhere, light or dark, where they can be read."""
    rng = generator(seed, "place")
    face = ImageFont.truetype(font, size)
    drawing = Image.new("L", picture.shape[::-1])
    draw = ImageDraw.Draw(drawing)
    draw.fontmode = "1" if rng.random() < 0.4 else "L"
    width = int(max(draw.textlength(line, font=face) for line in lines)) + 4
    height = int(len(lines) * size * 1.25) + 4
    places = [(x, y) for x in (8, SIDE - width - 8) for y in (8, SIDE - height - 8)]
    places.append((int(rng.integers(5, SIDE - width)), int(rng.integers(5, SIDE - height))))
    x, y = places[rng.integers(len(places))]
    value = TOP if picture[y : y + height, x : x + width].mean() < TOP / 2 else 0
    for number, line in enumerate(lines):
        draw.text((x, y + number * size * 1.25), line, fill=255, font=face)
    return _drawn(picture, drawing, value)


@pytest.mark.parametrize("size", [14, 22, 40])
@pytest.mark.parametrize("font", FONTS, ids=lambda font: font.stem)
def test_text_is_found(chests, font, size):
    rng = generator(0, "text", font.name, size)
    picture = _picture(chests, rng)
    lines = [LINES[i] for i in rng.choice(len(LINES), rng.integers(1, 4), replace=False)]
    quality = int(rng.choice([0, 60, 85]))
    written = _lossy(_with_text(picture, lines, size, font, size), quality)
    assert burned_in_text(written).startswith("text found: ")


def test_views_without_text(chests):
    for number, view in enumerate(chests):
        picture = _picture([view], generator(number, "view"))
        assert burned_in_text(picture) == burned_in_text(TOP - picture) == ""


def test_lines_are_counted_and_placed(chests):
    picture = _picture(chests, generator(0, "lines"))
    picture[:200] = 0
    drawing = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(drawing)
    draw.text((20, 20), "SMITH JOHN", fill=255, font=ImageFont.truetype(FONTS[0], 30))
    draw.text((20, 110), "1999-02-03", fill=255, font=ImageFont.truetype(FONTS[0], 30))
    written = _drawn(picture, drawing, TOP)
    assert burned_in_text(written) == "text found: 2 lines"
    tops = sorted(float(line[:, 0].mean()) for line in find_lines(written))
    assert tops == pytest.approx([27, 117], abs=8)


def test_text_along_the_columns_is_found(chests):
    picture = _with_text(_picture(chests, generator(1, "turned")), list(LINES[:2]), 24, FONTS[0], 1)
    for turned in (np.rot90(picture), np.rot90(picture, -1)):
        assert burned_in_text(np.ascontiguousarray(turned)).startswith("text found")


@pytest.mark.parametrize("text", ["L", "R", "L 1"])
def test_a_marker_of_the_side_is_no_text(chests, text):
    for seed in range(2):
        picture = _picture(chests, generator(seed, "marker"))
        assert burned_in_text(_with_text(picture, [text], 60, FONTS[1], seed)) == ""


def _ruler(picture: np.ndarray) -> np.ndarray:
    for number, column in enumerate(range(40, SIDE - 40, 12)):
        picture[
            60 : 60 + (36 if number % 10 == 0 else 24 if number % 5 == 0 else 14), column : column + 2
        ] = TOP
    return picture


def _lattice(picture: np.ndarray) -> np.ndarray:
    picture[::50] = TOP
    picture[:, ::50] = TOP
    return picture


def _beads(picture: np.ndarray) -> np.ndarray:
    disc = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5
    for row in range(30, SIDE - 30, 40):
        for column in range(30, SIDE - 30, 40):
            picture[row - 5 : row + 6, column - 5 : column + 6][disc] = 0
    return picture


def _wires(picture: np.ndarray) -> np.ndarray:
    drawing = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(drawing)
    across = np.linspace(0, SIDE, 80)
    for height in (200, 500):
        draw.line([(x, height + 120 * np.sin(x / 130)) for x in across], fill=255, width=5)
    for x in (300, 420, 700):
        draw.ellipse([x, 640, x + 34, 674], outline=255, width=4)
    return _drawn(picture, drawing, TOP)


def _comb(picture: np.ndarray) -> np.ndarray:
    """Stripes at the upper border, of a detector read out to its end."""
    picture[:20, ::9] = 0
    picture[:20, 4::13] = TOP
    return picture


@pytest.mark.parametrize("thing", [_ruler, _lattice, _beads, _wires, _comb], ids=lambda f: f.__name__[1:])
@pytest.mark.parametrize("quality", [0, 60])
def test_what_is_no_text(chests, thing, quality):
    picture = thing(_picture(chests, generator(2, thing.__name__)))
    assert burned_in_text(_lossy(picture, quality)) == ""


def test_pictures_without_anything_in_them():
    for value in (0, 7, 65535):
        assert burned_in_text(np.full((200, 300), value, np.uint16)) == ""
    noise = generator(0, "noise").integers(0, 4096, (400, 400)).astype(np.uint16)
    assert burned_in_text(noise) == ""
    assert burned_in_text(np.zeros((3, 3), np.int16)) == ""


def test_signed_pixels(chests):
    picture = _picture(chests, generator(3, "signed"))
    written = _with_text(picture, list(LINES), 24, FONTS[0], 3)
    assert burned_in_text((written.astype(int) - 2048).astype(np.int16)).startswith("text found")


def test_a_real_chest_with_and_without_text(real_data):
    """Catheter, ribs and the stripes of a selenium drum at its border are no text."""
    chest = pydicom.dcmread(real_data / "xray" / "chest_pa_monochrome1_j2k.dcm").pixel_array
    for one in (chest, 32767 - chest, chest[::2, ::2], chest[:, ::-1]):
        assert burned_in_text(np.ascontiguousarray(one)) == ""
    drawing = Image.new("L", chest.shape[::-1])
    ImageDraw.Draw(drawing).text((60, 1700), LINES[0], fill=255, font=ImageFont.truetype(FONTS[0], 32))
    assert burned_in_text(_drawn(chest, drawing, 0)) == "text found: 1 line"
