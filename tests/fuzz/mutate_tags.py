"""Mutations of elements of the header, all that are read and some that are not."""

from __future__ import annotations

import numpy as np
from base import SLICES, write_slice
from declared import ALL, Change
from mutation import NOTHING, Series, lost, mutation
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag

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
