"""Mutations of where slices lie and which there are."""

from __future__ import annotations

import shutil

import pydicom
from base import SLICES
from declared import Change
from mutation import Series, mutation
from pydicom.dataset import FileDataset


@mutation
def a_slice_twice(series: Series) -> Change:
    """The very file again, or under another UID."""
    one = series.some()
    copy = series.folder / "again.dcm"
    shutil.copy(series.files[one], copy)
    if series.rng.random() < 0.5:
        data = pydicom.dcmread(copy)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.999"
        data.save_as(copy)
    return Change()


@mutation
def missing_inner_slices(series: Series) -> Change:
    for index in sorted({series.inner() for _ in range(series.rng.integers(1, 4))}):
        series.files[index].unlink()
    return Change()


@mutation
def missing_end_slices(series: Series) -> Change:
    """Undetectable: positions tell no end, and InstanceNumber need not begin at 1."""
    count = int(series.rng.integers(1, 4))
    gone = range(count) if series.rng.random() < 0.5 else range(SLICES - count, SLICES)
    for index in gone:
        series.files[index].unlink()
    return Change(gone=frozenset(gone))


@mutation
def swapped_positions(series: Series) -> Change:
    """Undetectable, since nothing but its position says where a slice lies."""
    first, second = sorted(series.rng.choice(SLICES, 2, replace=False).tolist())
    places = [pydicom.dcmread(series.files[i]).ImagePositionPatient for i in (first, second)]
    for index, place in ((first, places[1]), (second, places[0])):
        series.edit(index, lambda data, place=place: setattr(data, "ImagePositionPatient", place))
    order = list(range(SLICES))
    order[first], order[second] = second, first
    return Change(order=tuple(order))


@mutation
def a_shifted_slice(series: Series) -> Change:
    one, by = series.some(), float(series.rng.choice([0.05, 0.2, 0.3, 1.0, 1.85, 3.6, 3.7, 40.0, -2.0, 1e6]))

    def shift(data: FileDataset) -> None:
        x, y, z = map(float, data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y, round(z + by, 3)]

    series.edit(one, shift)
    return Change()


@mutation
def shifted_from_a_slice_on(series: Series) -> Change:
    first, by = int(series.rng.integers(1, SLICES)), float(series.rng.choice([0.3, 0.8, 1.2, 3.7, 7.4, -1.0]))

    def shift(data: FileDataset) -> None:
        x, y, z = map(float, data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y, round(z + by, 3)]

    for index in range(first, SLICES):
        series.edit(index, shift)
    return Change()


@mutation
def another_spacing(series: Series) -> Change:
    """All positions stretched: the volume is as far apart as they say."""
    by = float(series.rng.choice([0.5, 0.9, 1.1, 2.0, 1e-4, 1e4, 0.0, -1.0]))

    def stretch(data: FileDataset) -> None:
        x, y, z = map(float, data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y, round(z * by, 5)]

    for index in range(SLICES):
        series.edit(index, stretch)
    mirrored = tuple(range(SLICES))[::-1] if by < 0 else None
    return Change(spacing=True, order=mirrored)


@mutation
def a_leaning_stack(series: Series) -> Change:
    by = float(series.rng.uniform(0.05, 2.0))

    def lean(data: FileDataset) -> None:
        x, y, z = map(float, data.ImagePositionPatient)
        data.ImagePositionPatient = [x, round(y + by * (z + 700), 4), z]

    for index in range(SLICES):
        series.edit(index, lean)
    return Change()


@mutation
def slices_of_another_series(series: Series) -> Change:
    """Others' slices under this series' UID: between these, at the same places, or of another matrix."""
    for number in range(int(series.rng.integers(1, 5))):
        index = series.some()
        data = pydicom.dcmread(series.files[index])
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{number}"
        x, y, z = map(float, data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y, round(z + float(series.rng.choice([0.0, 1.85, 1.0])), 3)]
        data.save_as(series.folder / f"other-{number}.dcm")
    return Change()
