"""A refusal says whether the disk or the file is to blame."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import MIN_SLICES, Source


def _refused(*files: Path) -> Refused:
    with pytest.raises(Refused) as refused:
        read_volume(Source("P", "1", "1.1", "dicom", files))
    return refused.value


def test_a_file_that_the_system_cannot_read_may_be_readable_another_time(tmp_path):
    loop = tmp_path / "slice.dcm"
    loop.symlink_to(loop)
    assert _refused(*[loop] * MIN_SLICES).passing


def test_a_file_that_is_wrong_stays_wrong(tmp_path):
    (tmp_path / "slice.dcm").write_text("no DICOM")
    assert not _refused(*[tmp_path / "slice.dcm"] * MIN_SLICES).passing


def test_memory_that_was_short_may_be_there_another_time():
    refused = Refused("pixels cannot be read")
    refused.__cause__ = MemoryError()
    assert refused.passing
    refused.__cause__ = OSError("a line of its header is longer than 1000 bytes")  # ITK's, with no errno
    assert not refused.passing
