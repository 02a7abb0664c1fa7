"""Sizes read from real codestreams, and from heads that end too soon."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.encaps import generate_fragments

from xr2ct.cohorts.codestream import frame_size


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
