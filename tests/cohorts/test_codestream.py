"""Sizes read from real codestreams, and from heads that end too soon."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.encaps import generate_fragments

from xr2ct.cohorts.codestream import frame_size, rle_holds


@pytest.mark.parametrize("name", ["J2KI", "J2KR", "JLSL", "JLSN", "JPLL"])
def test_real_codestreams(real_data, name):
    data = pydicom.dcmread(real_data / "compressed" / f"CT1_{name}.dcm")
    sizes = [frame_size(fragment) for fragment in generate_fragments(data.PixelData)]
    assert [size for size in sizes if size] == [(512, 512)]
    (stream,) = (f for f in generate_fragments(data.PixelData) if frame_size(f))
    for length in range(40):
        assert frame_size(stream[:length]) in (None, (512, 512))


def test_what_has_no_size():
    assert frame_size(b"") is None
    assert frame_size(b"\xff\xd8\xff") is None
    assert frame_size(bytes(100)) is None


def test_a_picture_within_a_larger_grid():
    """Rows and columns are counted from the picture's own corner."""
    siz = b"\xff\x4f\xff\x51" + bytes(4) + b"".join(n.to_bytes(4, "big") for n in (300, 200, 100, 50))
    assert frame_size(siz) == (150, 200)


def test_a_real_rle_frame_holds_its_size_and_no_other(real_data):
    data = pydicom.dcmread(real_data / "compressed" / "CT1_RLE.dcm")
    *_, frame = generate_fragments(data.PixelData)
    assert rle_holds(frame, 2, 512 * 512)
    for segments, size in ((1, 512 * 512), (2, 512 * 511), (2, 512 * 513), (3, 512 * 512)):
        assert not rle_holds(frame, segments, size)
    assert not rle_holds(frame[: len(frame) // 2], 2, 512 * 512)


@pytest.mark.parametrize(
    ("packets", "size"),
    [
        (b"\x02abc", 3),
        (b"\xfex", 3),  # 257 − 254 = 3 times
        (b"\x80\x00a", 1),  # 128 says nothing
        (b"\x02abc\x00", 3),  # padded to an even length
    ],
)
def test_run_lengths(packets, size):
    frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + packets
    assert rle_holds(frame, 1, size)
    assert not rle_holds(frame, 1, size - 1)
    assert not rle_holds(frame, 1, size + 1)
