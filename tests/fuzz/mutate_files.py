"""Mutations of files and folders: names, links, strangers, what is no file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from base import SLICES
from declared import Change
from mutation import Series, mutation

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
