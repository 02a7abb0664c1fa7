"""Sizes read from real codestreams, and from heads that end too soon."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.encaps import generate_fragments

from xr2ct.cohorts.codestream import Frame, read_frame, rle_holds


@pytest.mark.parametrize("name", ["J2KI", "J2KR", "JLSL", "JLSN", "JPLL"])
def test_real_codestreams(real_data, name):
    data = pydicom.dcmread(real_data / "compressed" / f"CT1_{name}.dcm")
    frames = [read_frame(fragment) for fragment in generate_fragments(data.PixelData)]
    (frame,) = (frame for frame in frames if frame)
    assert frame[:3] == (512, 512, 1) and 12 <= frame.bits <= 16
    assert frame.misfit(512, 512) == ""
    (stream,) = (f for f in generate_fragments(data.PixelData) if read_frame(f))
    for length in range(50):
        assert read_frame(stream[:length]) in (None, frame)


def test_what_has_no_size():
    assert read_frame(b"") is None
    assert read_frame(b"\xff\xd8\xff") is None
    assert read_frame(bytes(100)) is None


def test_a_picture_within_a_larger_grid():
    """Rows and columns are counted from the picture's own corner."""
    siz = b"\xff\x4f\xff\x51" + bytes(4) + b"".join(n.to_bytes(4, "big") for n in (300, 200, 100, 50))
    assert read_frame(siz + bytes(16) + b"\0\1\x0b") == Frame(150, 200, 1, 12)


def test_what_decoders_die_of_is_said():
    assert Frame(64, 64, 1, 48).misfit(64, 64) == "compressed pixels are of 1 samples of 48 bits"
    assert Frame(64, 64, 3, 8).misfit(64, 64) == "compressed pixels are of 3 samples of 8 bits"
    assert Frame(60000, 60000, 1, 8).misfit(64, 64).startswith("compressed pixels are 60000 rows")


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
