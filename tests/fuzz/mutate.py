"""Seeded mutations of a DICOM series on disk, each with what it may change in a volume that is accepted."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from base import SLICES, write_slice
from declared import ALL, Change
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE

NOTHING = Change()
PIXELS = b"\xe0\x7f\x10\x00"


@dataclass
class Series:
    """A base series that is to be spoilt."""

    folder: Path
    files: list[Path]
    """From the feet up."""
    rng: np.random.Generator

    def some(self) -> int:
        """A slice's place, often one at an end."""
        return int(self.rng.choice([0, SLICES - 1, *range(SLICES)]))

    def inner(self) -> int:
        return int(self.rng.integers(4, SLICES - 4))

    def edit(self, index: int, change: Callable[[FileDataset], None]) -> None:
        data = pydicom.dcmread(self.files[index])
        change(data)
        data.save_as(self.files[index], enforce_file_format=False)


Mutation = Callable[[Series], Change]
MUTATIONS: dict[str, Mutation] = {}


def mutation(apply: Mutation) -> Mutation:
    """Enter a mutation under its name."""
    MUTATIONS[apply.__name__.strip("_").replace("_", " ")] = apply
    return apply


def lost(*slices: int) -> Change:
    """Those may have other pixels, or be gone where they lie at an end."""
    return Change(pixels=frozenset(slices), gone=frozenset(slices) & {0, SLICES - 1})


# Bytes ---------------------------------------------------------------------------------------------------


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


# Tags ----------------------------------------------------------------------------------------------------

GEOMETRY = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
VALUES = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "PlanarConfiguration"),
    *("RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("SmallestImagePixelValue", "SOPClassUID", "RescaleType"),
)
IDENTITY = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "ImageType"),
    *("AcquisitionNumber", "SOPClassUID"),
)
INDIFFERENT = (
    *("InstanceNumber", "SliceThickness", "SpacingBetweenSlices", "SliceLocation", "ConvolutionKernel"),
    *("ContrastBolusAgent", "KVP", "Manufacturer", "GantryDetectorTilt", "StudyDate", "AcquisitionDate"),
    *("PatientName", "SpecificCharacterSet", "ContrastBolusVolume", "WindowCenter", "ImageComments"),
)
TEXTS = (
    *(
        b"",
        b" ",
        b"0",
        b"1",
        b"-1",
        b"2",
        b"0.5",
        b"NaN",
        b"inf",
        b"-inf",
        b"1e308",
        b"1e-300",
        b"-1e30",
        b"abc",
    ),
    *(b"1\\2", b"NaN\\NaN", b"0\\0", b"-1.3\\-1.1", b"1e9\\1e9", b"inf\\1", b"\\", b"1\\2\\3\\4\\5\\6\\7"),
    *(b"NaN\\0\\0", b"1e300\\0\\0", b"0\\0\\0", b"\\\\", b"1\\0\\0\\0\\1\\0", b"0\\1\\0\\1\\0\\0"),
    *(b"-1\\0\\0\\0\\1\\0", b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0", b"NaN\\0\\0\\0\\1\\0"),
    *(
        b"\0\xff\xfe",
        "München".encode(),
        b"9" * 400,
        b"1_0",
        b"0x10",
        b"1,5",
        b"--1",
        b"\x1b$B",
        b"A" * 70000,
    ),
)
NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 16, 23, 24, 25, 31, 32, 64, 255, 4096, 32767, 65535)


def _raw(series: Series, keyword: str) -> bytes | None:
    """Bytes for an element; None to delete it."""
    rng = series.rng
    if rng.random() < 0.15:
        return None
    if rng.random() < 0.1:
        return rng.bytes(rng.integers(0, 64))
    if dictionary_VR(tag_for_keyword(keyword)).startswith(("US", "SS", "OB")):
        number = int(rng.choice(NUMBERS)).to_bytes(2, "little")
        return number * int(rng.choice([1, 1, 1, 1, 2, 3])) if rng.random() < 0.9 else number[:1]
    text = TEXTS[rng.integers(len(TEXTS))]
    return text + b" " * (len(text) % 2)


def _put(data: Dataset, keyword: str, raw: bytes | None) -> None:
    tag = Tag(tag_for_keyword(keyword))
    if raw is None:
        data.pop(tag, None)
        return
    vr = dictionary_VR(tag).split(" ")[0]
    implicit = bool(data.original_encoding[0])
    if vr not in ("OB", "OW", "UN", "SQ", "UT", "LT"):
        raw = raw[:65534]
    data[tag] = RawDataElement(tag, vr, len(raw), raw, 0, implicit, True)


def _tags(series: Series, keywords: tuple[str, ...], everywhere: bool) -> tuple[str, int]:
    keyword = str(series.rng.choice(keywords))
    raw, one = _raw(series, keyword), series.some()
    for index in range(SLICES) if everywhere else [one]:
        series.edit(index, lambda data: _put(data, keyword, raw))
    return keyword, one


@mutation
def a_geometry_tag_of_one_slice(series: Series) -> Change:
    return lost(_tags(series, GEOMETRY, everywhere=False)[1])


@mutation
def a_geometry_tag_of_all_slices(series: Series) -> Change:
    _tags(series, GEOMETRY, everywhere=True)
    return Change(geometry=True)


@mutation
def a_value_tag_of_one_slice(series: Series) -> Change:
    return lost(_tags(series, VALUES, everywhere=False)[1])


@mutation
def a_value_tag_of_all_slices(series: Series) -> Change:
    """Spacing and shape stay: that rows are left out would be no word of such a tag's."""
    _tags(series, VALUES, everywhere=True)
    return Change(pixels=ALL)


@mutation
def an_identity_tag_of_one_slice(series: Series) -> Change:
    keyword, one = _tags(series, IDENTITY, everywhere=False)
    return lost(one) if keyword == "SOPClassUID" else Change(gone=frozenset({one}) & {0, SLICES - 1})


@mutation
def an_identity_tag_of_all_slices(series: Series) -> Change:
    _tags(series, IDENTITY, everywhere=True)
    return NOTHING


@mutation
def an_indifferent_tag(series: Series) -> Change:
    _tags(series, INDIFFERENT, everywhere=bool(series.rng.random() < 0.5))
    return NOTHING


@mutation
def several_tags(series: Series) -> Change:
    touched = [_tags(series, (*VALUES, *IDENTITY), everywhere=False)[1] for _ in range(3)]
    low = [i for i in range(3) if set(range(i + 1)) <= set(touched)]
    high = [i for i in range(SLICES - 3, SLICES) if set(range(i, SLICES)) <= set(touched)]
    return Change(pixels=frozenset(touched), gone=frozenset([*low, *high]))


@mutation
def a_slope_of_one_slice(series: Series) -> Change:
    one, value = series.some(), series.rng.choice(["0", "NaN", "-1", "1e30", "2", "1e-9", "inf", "1000"])
    series.edit(one, lambda data: _put(data, "RescaleSlope", str(value).encode()))
    return Change(pixels=frozenset({one}))


@mutation
def giant_dimensions(series: Series) -> Change:
    one = series.some()
    everywhere = series.rng.random() < 0.5
    keywords = series.rng.choice([["Rows"], ["Columns"], ["Rows", "Columns"]][series.rng.integers(3)], 2)

    def grow(data: FileDataset) -> None:
        for keyword in set(keywords):
            _put(data, str(keyword), b"\xff\xff" if everywhere else b"\x00\x10")
        _put(data, "NumberOfFrames", b"1000000 " if series.rng.random() < 0.3 else None)

    for index in range(SLICES) if everywhere else [one]:
        series.edit(index, grow)
    return Change()


@mutation
def one_pixel_images(series: Series) -> Change:
    for index in range(SLICES):
        small = write_slice(np.full((1, 1), 40, np.int16), index, "explicit")
        small.Rows = small.Columns = 1
        small.save_as(series.files[index], enforce_file_format=True)
    return Change()


@mutation
def another_transfer_syntax(series: Series) -> Change:
    one, everywhere = series.some(), series.rng.random() < 0.5
    syntax = str(
        series.rng.choice(
            [
                *(
                    "1.2.840.10008.1.2",
                    "1.2.840.10008.1.2.1",
                    "1.2.840.10008.1.2.2",
                    "1.2.840.10008.1.2.1.99",
                ),
                *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.3", ""),
                *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.100"),
            ]
        )
    )
    for index in range(SLICES) if everywhere else [one]:
        data = series.files[index].read_bytes()
        at = data.index(b"\x02\x00\x10\x00UI") + 8
        length = int.from_bytes(data[at - 2 : at], "little")
        value = syntax.encode() + b"\0" * (len(syntax) % 2)
        size = int.from_bytes(data[140:144], "little") + len(value) - length
        data = data[: at - 2] + len(value).to_bytes(2, "little") + value + data[at + length :]
        series.files[index].write_bytes(data[:140] + size.to_bytes(4, "little") + data[144:])
    return Change() if everywhere else Change(gone=frozenset({one}) & {0, SLICES - 1})


@mutation
def compressed_garbage(series: Series) -> Change:
    """Fragments that are no code stream, or of lengths that lie."""
    one = series.some()
    rng = series.rng

    def spoil(data: FileDataset) -> None:
        data.file_meta.TransferSyntaxUID = str(
            rng.choice(
                [f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)]
                + ["1.2.840.10008.1.2.5"]
            )
        )
        body = rng.bytes(int(rng.integers(0, 900)))
        begin = [b"", b"\xff\xd8\xff\xe0", b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xf7", b"\1\0\0\0\x40\0\0\0"][
            rng.integers(5)
        ]
        fragment = begin + body + b"\0" * (len(begin + body) % 2)
        length = len(fragment) if rng.random() < 0.6 else int(rng.choice([0, 2, 0xFFFFFFFE, 0x7FFFFFFF]))
        data.PixelData = (
            b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0" + length.to_bytes(4, "little") + fragment
        ) + (b"\xfe\xff\xdd\xe0\0\0\0\0" if rng.random() < 0.7 else b"")
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True

    series.edit(one, spoil)
    return Change(pixels=frozenset({one}))


@mutation
def sequences_within_sequences(series: Series) -> Change:
    """Deep, and of undefined length."""
    one, depth = series.some(), int(series.rng.choice([3, 60, 900]))
    data = series.files[one].read_bytes()
    at = data.index(b"\x10\0\x10\0", 132)
    vr = b"SQ\0\0" if data[at + 4 : at + 6] == b"PN" else b""
    opened = b"\x08\0\x40\x11" + vr + b"\xff" * 4 + b"\xfe\xff\0\xe0" + b"\xff" * 4
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    series.files[one].write_bytes(data[:at] + opened * depth + closed * depth + data[at:])
    return Change()


@mutation
def an_unclosed_sequence(series: Series) -> Change:
    one = series.some()
    data = series.files[one].read_bytes()
    at = data.index(b"\x08\x00\x16\x00")
    opened = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * int(
        series.rng.integers(1, 300)
    )
    series.files[one].write_bytes(data[:at] + opened + data[at:])
    return lost(one)


# Slices --------------------------------------------------------------------------------------------------


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


# Files and folders ---------------------------------------------------------------------------------------

NAMES = (
    *(
        b"a\nb.dcm",
        b"'; rm -rf x.dcm",
        b'"q".dcm',
        b"\xff\xfe\x80.dcm",
        b"-rf",
        b"con",
        b"a b\t.dcm",
        b"%s%n.dcm",
    ),
    *(
        "Größe-断層.dcm".encode(),
        b"x" * 245 + b".dcm",
        b"slice",
        b"slice.jpg",
        b"slice.txt",
        b"a.dcm.gz.exe",
        b"\\x.dcm",
    ),
    *(b"\xed\xa0\x80.dcm", b"*?[a].dcm", b"IM.0001", b"#1", b"~"),
)


@mutation
def hostile_file_names(series: Series) -> Change:
    for index in range(SLICES):
        if series.rng.random() < 0.3:
            name = NAMES[series.rng.integers(len(NAMES))]
            series.files[index].rename(series.folder / os.fsdecode(b"%d" % index + name))
    return Change()


@mutation
def hostile_folder_names(series: Series) -> Change:
    name = os.fsdecode(b"d" + NAMES[series.rng.integers(len(NAMES))])
    below = series.folder / name
    below.mkdir()
    for path in series.files:
        path.rename(below / path.name)
    return Change()


@mutation
def suffixes_that_lie(series: Series) -> Change:
    """A slice named like a volume file is none of the series; at an end that cannot be seen."""
    one = series.some()
    suffix = str(series.rng.choice([".nii", ".nii.gz", ".nrrd", ".mha", ".jpg", ".h5", ""]))
    series.files[one].rename(series.files[one].with_suffix(suffix))
    return Change(gone=frozenset({one}) & {0, SLICES - 1})


@mutation
def links_that_loop(series: Series) -> Change:
    (series.folder / "loop").symlink_to(series.folder)
    if series.rng.random() < 0.3:  # what should be a slice and cannot be read
        (series.folder / "self.dcm").symlink_to(series.folder / "self.dcm")
    (series.folder / "below").mkdir()
    (series.folder / "below" / "up").symlink_to("..")
    return Change()


@mutation
def links_to_nothing(series: Series) -> Change:
    suffix = str(series.rng.choice([".dcm", "", ".nii"]))
    (series.folder / f"dangling{suffix}").symlink_to(series.folder / "nowhere")
    return Change()


@mutation
def pipes_devices_and_sockets(series: Series) -> Change:
    suffix = str(series.rng.choice([".dcm", "", ".nii.gz", ".mha", ".nrrd"]))
    kind = series.rng.integers(4)
    path = series.folder / f"special{suffix}"
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to("/dev/full")
    else:
        end = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(series.folder)  # a socket's path is short
        try:
            end.bind(path.name)
        finally:
            os.chdir(here)
            end.close()
    return Change()


@mutation
def folders_named_like_files(series: Series) -> Change:
    (series.folder / "folder.dcm").mkdir()
    (series.folder / "folder.nii").mkdir()
    (series.folder / "folder.mha").mkdir()
    return Change()


@mutation
def strangers_among_the_files(series: Series) -> Change:
    """A file that should be a slice spoils the series; one that should not be is passed over."""
    rng = series.rng
    for number in range(int(rng.integers(1, 4))):
        suffix = str(rng.choice([".dcm", "", ".db", ".zip", ".txt", ".nii", ".mha", ".ima"]))
        begin = [b"", b"PK\3\4", b"\0" * 128 + b"DICM", b"\x08\0\5\0CS\n\0", b"\0" * 300, b"\x02\0\0\0UL\4\0"]
        body = begin[rng.integers(len(begin))] + rng.bytes(int(rng.integers(0, 400)))
        (series.folder / f"stranger-{number}{suffix}").write_bytes(body)
    return Change()


@mutation
def nothing_at_all(series: Series) -> Change:
    return Change()
