"""Seeded mutations of a volume file: its header is the only word on what it holds, its voxels are not."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from declared import ALL, Change

Mutation = Callable[[list[Path], np.random.Generator], Change]
MUTATIONS: dict[str, Mutation] = {}

_VALUES = (
    *(
        "",
        "0",
        "-1",
        "NaN",
        "inf",
        "1e308",
        "65535",
        "4294967296 4294967296 4294967296",
        "24 24",
        "24 24 20 7",
    ),
    *("1 1 1", "0 0 0", "NaN 1 1", "MET_DOUBLE", "MET_UCHAR", "MET_SHORT_ARRAY", "short", "double", "block"),
    *(
        "LIST",
        "LOCAL",
        "/dev/zero",
        "../../../../etc/passwd",
        "nowhere.raw",
        "gzip",
        "bzip2",
        "raw",
        "hex",
        "True",
    ),
    *(
        "0 0 0 0 0 0 0 0 0",
        "1 0 0 0 -1 0 0 0 1",
        "(1,0,0) (0,1,0) (0,0,0)",
        "left-posterior-superior",
        "x" * 5000,
    ),
)


def mutation(apply: Mutation) -> Mutation:
    """Enter a mutation under its name."""
    MUTATIONS["volume: " + apply.__name__.replace("_", " ")] = apply
    return apply


def _header(path: Path) -> int:
    """Where the header ends."""
    if path.suffix in (".mhd", ".nhdr"):
        return path.stat().st_size
    data = path.read_bytes()
    return (
        352 if ".nii" in path.name else data.index(b"\n\n") if b"\n\n" in data else data.index(b"LOCAL") + 6
    )


def _unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, 1, mtime=0) if path.name.endswith(".gz") else data)


@mutation
def bytes_in_the_header(files: list[Path], rng: np.random.Generator) -> Change:
    data = bytearray(_unpacked(files[0]))
    end = 352 if ".nii" in files[0].name else _header(files[0])
    for place in rng.integers(0, end, rng.integers(1, 6)):
        data[place] = rng.integers(256)
    _write(files[0], bytes(data))
    return Change(anything=True)


@mutation
def bytes_in_the_voxels(files: list[Path], rng: np.random.Generator) -> Change:
    path = files[-1]
    data = bytearray(_unpacked(path))
    begin = 0 if path.suffix in (".raw", ".zraw") else 352 if ".nii" in path.name else _header(path)
    for place in rng.integers(begin, len(data), rng.integers(1, 20)):
        data[place] = rng.integers(256)
    _write(path, bytes(data))
    return Change(pixels=ALL)


@mutation
def truncation(files: list[Path], rng: np.random.Generator) -> Change:
    path = files[rng.integers(len(files))]
    data = path.read_bytes()
    path.write_bytes(data[: rng.integers(len(data))])
    # Of a text header the end may be lost with no harm, or a line that says something.
    return Change(anything=path.suffix in (".mhd", ".nhdr"))


@mutation
def bytes_in_the_compressed_stream(files: list[Path], rng: np.random.Generator) -> Change:
    path = files[-1]
    data = bytearray(path.read_bytes())
    for place in rng.integers(len(data) // 4, len(data), rng.integers(1, 4)):
        data[place] = rng.integers(256)
    path.write_bytes(bytes(data))
    return Change(pixels=ALL, anything=path.suffix in (".mhd", ".nhdr"))


@mutation
def a_line_of_a_text_header(files: list[Path], rng: np.random.Generator) -> Change:
    path = files[0]
    if ".nii" in path.name:
        return a_field_of_a_nifti(files, rng)
    data, end = path.read_bytes(), _header(path)
    lines = data[:end].split(b"\n")
    chosen = int(rng.integers(len(lines)))
    name, sign, _ = re.match(rb"([^=:]*)(\s*[=:]\s*)?(.*)", lines[chosen], re.DOTALL).groups()
    value = _VALUES[rng.integers(len(_VALUES))].encode()
    lines[chosen] = [name + (sign or b" = ") + value, b"", lines[chosen] + b"\n" + lines[chosen]][
        rng.integers(3)
    ]
    path.write_bytes(b"\n".join(lines) + data[end:])
    return Change(anything=True)


@mutation
def a_field_of_a_nifti(files: list[Path], rng: np.random.Generator) -> Change:
    path = files[0]
    if ".nii" not in path.name:
        return a_line_of_a_text_header(files, rng)
    data = bytearray(_unpacked(path))
    floats = {
        "pixdim": (76, 8),
        "vox_offset": (108, 1),
        "scl": (112, 2),
        "quatern": (256, 6),
        "srow": (280, 12),
    }
    shorts = {"dim": (40, 8), "datatype": (70, 1), "bitpix": (72, 1), "forms": (252, 2)}
    name = str(rng.choice([*floats, *shorts]))
    if name in floats:
        begin, count = floats[name]
        value = rng.choice([0, -1, np.nan, np.inf, -np.inf, 1e30, 1e-30, 0.5, 2, 352, 1000])
        struct.pack_into("<f", data, begin + 4 * int(rng.integers(count)), value)
    else:
        begin, count = shorts[name]
        value = rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 16, 24, 64, 512, 4096, 32767, -1, -32768, 1536])
        struct.pack_into("<h", data, begin + 2 * int(rng.integers(count)), value)
    _write(path, bytes(data))
    return Change(anything=True)


@mutation
def another_suffix(files: list[Path], rng: np.random.Generator) -> Change:
    suffix = str(rng.choice([".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", "", ".h5"]))
    files[0].rename(files[0].with_name("chest" + suffix))
    return Change()
