"""Text drawn into the pixels of a radiograph.

No character is read. What tells letters from anatomy is that they were drawn: strokes of one value with sharp
edges, in pieces of like height that stand on one line, and that differ in shape, as a ruler's ticks, a grid's
holes and the stripes at a detector's border do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

LEVELS = 3
"""Each halves the picture of the one before."""
SMALLEST_PX, LARGEST_PX = 6, 44
"""Height of the letters sought on one level,"""
CAPITAL_PX = 8
"""and of the highest in a word at least."""
STROKE_PX = 13
"""No stroke of a letter is wider, on its level,"""
STROKE = 0.45
"""nor wider than this part of the letter: the meshes of a grid are."""
MIN_CONTRAST = 0.1
"""Of a letter against what lies around it, as a part of the picture's range."""
MIN_EVEN = 0.45
"""Part of a letter's pixels that hold one value: anatomy shades off, and so do wires and vessels."""
MIN_SHAPES = 3
"""Letters in one line that differ in shape: fewer are a marker of the side, or a ruler's figures."""
DIFFERENT = 0.15
"""Part of two shapes, at one size, in which they differ at least."""


@dataclass(frozen=True)
class Letters:
    """Pieces that may be letters, an element each of every array."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    value: np.ndarray
    """What most of its pixels hold."""
    contrast: np.ndarray
    even: np.ndarray
    """Part of its pixels that hold that value."""
    signature: np.ndarray
    """(n, 8, 8) the shape, at one size for all."""

    def __len__(self) -> int:
        return len(self.top)


def burned_in_text(pixels: np.ndarray) -> str:
    """What was found in a picture (row, column) of any integer type, empty where there is no text.

    Light or dark letters are sought, along rows and along columns.
    """
    lines = len(find_lines(pixels))
    return f"text found: {lines} line{'s' if lines > 1 else ''}" if lines else ""


def find_lines(pixels: np.ndarray) -> list[np.ndarray]:
    """Each line of text as (letter, 4): top, left, height and width of its letters, in pixels."""
    picture = _to_range(pixels)
    words: list[np.ndarray] = []
    for level in range(LEVELS):
        if min(picture.shape) < 4 * STROKE_PX:
            break
        for polarity in (1, -1):
            letters = _letters(polarity * picture)
            for turned in (False, True):
                one = _turned(letters) if turned else letters
                for group in _words(one):
                    box = np.stack([one.top, one.left, one.height, one.width], 1)[group] * 2**level
                    words.append(box[:, [1, 0, 3, 2]] if turned else box)
        picture = _halved(picture)
    return _joined(words)


def _to_range(pixels: np.ndarray) -> np.ndarray:
    """float32 of which the anatomy spans 0 to 1; what is far outside is as good as a little outside."""
    low, high = np.percentile(pixels[::3, ::3], [0.5, 99.5])
    if high <= low:
        low, high = float(pixels.min()), float(pixels.max()) or 1.0
    return np.clip((pixels - np.float32(low)) / np.float32(max(high - low, 1)), -0.5, 1.5).astype(np.float32)


def _halved(picture: np.ndarray) -> np.ndarray:
    rows, columns = (n // 2 * 2 for n in picture.shape)
    even = picture[:rows, :columns]
    return even.reshape(rows // 2, 2, columns // 2, 2).mean((1, 3))


def _letters(picture: np.ndarray) -> Letters:
    """Light pieces of the size and the evenness of letters."""
    raised = picture - ndimage.grey_opening(picture, STROKE_PX)
    noise = 1.05 * float(np.median(np.abs(np.diff(picture, axis=1))))  # σ, of the neighbours' difference
    floor = max(MIN_CONTRAST, 8 * noise)
    around = ndimage.maximum_filter(raised, LARGEST_PX)
    labels, _ = ndimage.label((raised > 0.5 * around) & (raised > floor), np.ones((3, 3)))
    found, shapes = [], []
    for label, where in enumerate(ndimage.find_objects(labels), 1):
        height, width = (s.stop - s.start for s in where)
        if not (SMALLEST_PX <= max(height, width) <= LARGEST_PX and min(height, width) >= 2):
            continue
        if any(s.start == 0 or s.stop == n for s, n in zip(where, picture.shape, strict=True)):
            continue
        mask = labels[where] == label
        stroke = 2 * ndimage.distance_transform_edt(np.pad(mask, 1)).max() - 1
        if stroke > STROKE * max(height, width):
            continue
        values = picture[where][mask]
        contrast = float(np.percentile(raised[where][mask], 75))
        value = float(np.percentile(values, 75))
        even = float((np.abs(values - value) < 0.15 * contrast).mean())
        found.append((where[0].start, where[1].start, height, width, value, contrast, even))
        shapes.append(_signature(mask))
    n = np.array(found, float).reshape(-1, 7).T
    return Letters(n[0], n[1], n[2], n[3], n[4], n[5], n[6], np.array(shapes, bool).reshape(-1, 8, 8))


def _signature(mask: np.ndarray) -> np.ndarray:
    rows, columns = (((np.arange(8) + 0.5) * n / 8).astype(int) for n in mask.shape)
    return mask[np.ix_(rows, columns)]


def _turned(letters: Letters) -> Letters:
    """The same of the transposed picture, in which text along columns runs along rows."""
    return Letters(
        letters.left,
        letters.top,
        letters.width,
        letters.height,
        letters.value,
        letters.contrast,
        letters.even,
        letters.signature.transpose(0, 2, 1),
    )


def _words(letters: Letters) -> list[np.ndarray]:
    """Indices of the letters of each word that runs along a row."""
    usable = np.flatnonzero((letters.even >= MIN_EVEN) & (letters.height >= SMALLEST_PX))
    if len(usable) < MIN_SHAPES:
        return []
    bottom = letters.top + letters.height
    middle = np.stack([letters.left + 0.5 * letters.width, bottom], 1)[usable]
    a, b = usable[cKDTree(middle).query_pairs(2.0 * LARGEST_PX, output_type="ndarray").T]
    tall = np.maximum(letters.height[a], letters.height[b])
    low = np.minimum(letters.height[a], letters.height[b])
    gap = np.maximum(letters.left[a], letters.left[b]) - np.minimum(
        letters.left[a] + letters.width[a], letters.left[b] + letters.width[b]
    )
    contrast = np.minimum(letters.contrast[a], letters.contrast[b])
    together = (
        (np.abs(bottom[a] - bottom[b]) <= np.maximum(1.0, 0.08 * tall))
        & (tall <= 1.8 * low)
        & (gap <= 0.8 * tall)
        & (gap >= -0.3 * tall)
        & (np.abs(letters.value[a] - letters.value[b]) <= 0.2 * contrast)
    )
    pairs = coo_array((np.ones(together.sum()), (a[together], b[together])), shape=(len(letters),) * 2)
    _, group = connected_components(pairs, directed=False)
    linked = np.unique(group[a[together]])
    members = (np.flatnonzero(group == one) for one in linked)
    return [
        word
        for word in members
        if letters.height[word].max() >= CAPITAL_PX and _differ(letters, word) >= MIN_SHAPES
    ]


def _differ(letters: Letters, members: np.ndarray) -> int:
    """How many shapes there are among letters, bars and dots aside."""
    kinds: list[tuple[np.ndarray, float]] = []
    for one in members:
        shape, slimness = letters.signature[one], float(letters.width[one] / letters.height[one])
        if not (0.2 <= shape.mean() <= 0.8 and 0.25 <= slimness <= 1.6):
            continue
        if all(
            (shape != other).mean() > DIFFERENT or not 0.75 < slimness / other_slimness < 1.33
            for other, other_slimness in kinds
        ):
            kinds.append((shape, slimness))
    return len(kinds)


def _joined(words: list[np.ndarray]) -> list[np.ndarray]:
    """Words into lines; what was found once more on another level or in the holes of letters joins them."""
    lines: list[np.ndarray] = []
    for word in sorted(words, key=len, reverse=True):
        for number, line in enumerate(lines):
            if _in_line(line, word):
                lines[number] = np.concatenate([line, word])
                break
        else:
            lines.append(word)
    return lines


def _in_line(line: np.ndarray, word: np.ndarray) -> bool:
    """Whether a word's box meets a line's, widened to both sides along its length by a few letters."""
    size = float(np.median(line[:, 2:].max(1)))
    (top, left), (bottom, right) = line[:, :2].min(0), (line[:, :2] + line[:, 2:]).max(0)
    beside, above = (4 * size, 0.0) if right - left >= bottom - top else (0.0, 4 * size)
    (word_top, word_left), (word_bottom, word_right) = word[:, :2].min(0), (word[:, :2] + word[:, 2:]).max(0)
    return bool(
        word_top <= bottom + above
        and word_bottom >= top - above
        and word_left <= right + beside
        and word_right >= left - beside
    )
