"""Files through ITK, whatever they are called."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

# Its warnings name files, and whoever asked is told by an exception anyway.
sitk.ProcessObject.GlobalWarningDisplayOff()


def read_itk(path: Path, reader: str) -> sitk.Image:
    """The image that one of ITK's readers (`GDCMImageIO`, …) finds; raises `OSError` and `RuntimeError`."""
    with itk_name(path) as name:
        return sitk.ReadImage(name, imageIO=reader)


@contextmanager
def itk_name(path: Path) -> Iterator[str]:
    """A name under which ITK can open the file. One that is no UTF-8 would end the process, and a pipe or a
    device would never end; raises `OSError` for what is no file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no regular file")
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
