"""Mutations of the bytes of a slice: changed, lost, put in."""

from __future__ import annotations

from declared import Change
from mutation import PIXELS, Series, lost, mutation


def _flip(series: Series, index: int, low: int, high: int, most: int) -> None:
    data = bytearray(series.files[index].read_bytes())
    for place in series.rng.integers(low, min(high, len(data)), series.rng.integers(1, most + 1)):
        data[place] = series.rng.integers(256)
    series.files[index].write_bytes(data)


def _header_length(series: Series, index: int) -> int:
    return series.files[index].read_bytes().rindex(PIXELS)


@mutation
def bytes_in_a_header(series: Series) -> Change:
    index = series.some()
    _flip(series, index, 0, _header_length(series, index), 6)
    return lost(index)


@mutation
def bytes_in_the_file_meta(series: Series) -> Change:
    index = series.some()
    _flip(series, index, 128, 400, 3)
    return lost(index)


@mutation
def bytes_in_pixels(series: Series) -> Change:
    index = series.some()
    _flip(series, index, _header_length(series, index), 1 << 30, 20)
    return Change(pixels=frozenset({index}))


@mutation
def bytes_removed(series: Series) -> Change:
    index = series.some()
    data = series.files[index].read_bytes()
    first = int(series.rng.integers(len(data)))
    series.files[index].write_bytes(data[:first] + data[first + int(series.rng.integers(1, 40)) :])
    return lost(index)


@mutation
def bytes_inserted(series: Series) -> Change:
    index = series.some()
    data = series.files[index].read_bytes()
    first = int(series.rng.integers(len(data)))
    series.files[index].write_bytes(
        data[:first] + series.rng.bytes(series.rng.integers(1, 40)) + data[first:]
    )
    return lost(index)


@mutation
def truncation(series: Series) -> Change:
    index = series.some()
    data = series.files[index].read_bytes()
    series.files[index].write_bytes(data[: series.rng.integers(len(data))])
    return Change()


@mutation
def truncation_of_every_file(series: Series) -> Change:
    for path in series.files:
        data = path.read_bytes()
        path.write_bytes(data[: series.rng.integers(len(data) // 2, len(data))])
    return Change()


@mutation
def zeros_over_a_part(series: Series) -> Change:
    """As a file system leaves what it lost."""
    index = series.some()
    data = bytearray(series.files[index].read_bytes())
    first = int(series.rng.integers(len(data)))
    data[first:] = bytes(len(data) - first)
    series.files[index].write_bytes(data)
    return lost(index)
