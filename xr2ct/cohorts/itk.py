"""Files through ITK, whatever they are called."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

# Its warnings name files, and whoever asked is told by an exception anyway.
sitk.ProcessObject.GlobalWarningDisplayOff()

_TEXT_HEADERS = (".mha", ".mhd", ".nrrd", ".nhdr")
_LONGEST_LINE = 1000
_DIMENSIONS = re.compile(rb"(?:NDims\s*=|dimension\s*:)(.*)")
_SOME = {b"1", b"2", b"3", b"4", b"5"}


def read_itk(path: Path, reader: str) -> sitk.Image:
    """The image that one of ITK's readers (`GDCMImageIO`, …) finds; raises `OSError` and `RuntimeError`."""
    with itk_name(path) as name:
        return sitk.ReadImage(name, imageIO=reader)


@contextmanager
def itk_name(path: Path) -> Iterator[str]:
    """A name under which ITK can open the file. One that is no UTF-8 would end the process, and so would a
    long line of a text header; a pipe or a device would never end. Raises `OSError` for those."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no regular file")
    if path.name.lower().endswith(_TEXT_HEADERS):
        _check_lines(path)
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, "image" + "".join(path.suffixes[-2:]).encode("ascii", "replace").decode())
            link.symlink_to(path.absolute())
            yield str(link)
    else:
        yield name


def _check_lines(path: Path) -> None:
    """Raise `OSError` for a header that ends the process: a line that overruns the readers' buffers of 1024
    bytes, a number of dimensions that is none."""
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(_LONGEST_LINE + 1), b""):
            if len(line) > _LONGEST_LINE:
                raise OSError(f"{path}: a line of its header is longer than {_LONGEST_LINE} bytes")
            dimensions = _DIMENSIONS.match(line)
            if dimensions and dimensions[1].strip() not in _SOME:
                raise OSError(f"{path}: {line[:40]!r} in its header")
            if not line.strip() or line.startswith(b"ElementDataFile"):
                return  # voxels follow
