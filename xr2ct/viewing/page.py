"""The page of one patient, written.

One HTML file with everything in it: nothing is fetched, and it works from where it lies (file://), in any
browser that has DecompressionStream (Chromium since 80, Firefox since 113, Safari since 16.4).
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from xr2ct import __version__
from xr2ct.cohorts.volume import clip_hu
from xr2ct.errors import UserError
from xr2ct.projection.geometry import column_direction
from xr2ct.projection.views import Stated
from xr2ct.run import write_atomically
from xr2ct.viewing.data import packed, scaled, told
from xr2ct.viewing.volumes import Volume, read_hu, read_map, read_truth, shrink
from xr2ct.viewing.xrays import View, views_of

MAX_SIZE = 256
"""Voxels along an axis that a page carries unless more is asked for: 256³ is some 25 MB of it."""

_LINE_INTEGRAL_STEP = 1e-4
_MAP_STEPS = 200
"""Of a map, up to its full colour."""
_MADE_FROM = ("xr2ct_model_sha256", "xr2ct_views_sha256", "xr2ct_way")
"""What a header says of a reconstruction and of the maps beside it alike."""
_SCRIPTS = ("unpack.js", "planes.js", "xrays.js", "page.js")
_STRONG = 0.995
"""Quantile of a map that has its full colour, and of an X-ray that is white: a spike darkens nothing else."""


def write_view(
    volume: Path,
    out: Path,
    *,
    xrays: Sequence[str] = (),
    doubt: Path | None = None,
    unseen: Path | None = None,
    truth: Path | None = None,
    given: Stated | None = None,
    cube_mm: float | None = None,
    max_size: int = MAX_SIZE,
) -> Path:
    """Write the page of a volume in HU to `out` and return it.

    xrays: ``ANGLE=FILE`` or ``NAME=FILE``, read as `given` says, see `views_of`; doubt, unseen: images of HU
    on the volume's grid, laid over it (a standard deviation; the part that no X-ray tells of, of either
    sign); truth: the true CT, on that grid. cube_mm: side of a .npy. max_size: voxels along an axis beyond
    which what is shown is averaged, and says so; X-rays are made of the whole. Raises `UserError` for what
    cannot be read, does not fit or cannot be written.
    """
    if out.is_dir():
        raise UserError(f"{out}: a folder; expected the name of an HTML file to write")
    shown = read_hu(volume, cube_mm)
    ct = None if truth is None else read_truth(truth, shown, cube_mm)
    views = views_of(shown, xrays, given, truth=ct)
    overlays = {
        name: read_map(path, shown, f"the map of {what}", cube_mm)
        for name, what, path in (("doubt", "doubt", doubt), ("unseen", "what is unseen", unseen))
        if path is not None
    }
    arrays = _Arrays()
    about = {
        "title": volume.name,
        "volume": arrays.hu("volume", shrink(shown, max_size)),
        "truth": None if ct is None else arrays.hu("truth", shrink(ct, max_size)),
        "maps": {name: arrays.overlay(name, shrink(one, max_size)) for name, one in overlays.items()},
        "views": [arrays.view(f"view-{i}", view) for i, view in enumerate(views)],
    }
    notes = _notes(shown, max_size, bool(xrays)) + _notes_of_maps(shown, overlays)
    files_beside = {"truth": truth, "doubt": doubt, "unseen": unseen}
    facts = _facts(volume, shown, views, files_beside) | _headers([shown, *overlays.values()])
    try:
        write_atomically(out, _render(about, arrays.texts, notes, facts))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return out


class _Arrays:
    """What is packed, by the name of its element."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def hu(self, name: str, volume: Volume) -> dict[str, Any]:
        values = np.rint(clip_hu(volume.values)).astype(np.int16)
        self.texts[name] = packed(values)
        return {
            **told(values.shape),
            "spacing": list(volume.spacing_mm),
            "first": list(volume.first_mm),
        }

    def overlay(self, name: str, volume: Volume) -> dict[str, Any]:
        size = np.abs(volume.values)
        full = _rounded(float(np.quantile(size, _STRONG)) or float(size.max()))
        values, scale = scaled(volume.values, full / _MAP_STEPS)
        self.texts[name] = packed(values)
        return {**told(values.shape, scale), "signed": bool((volume.values < 0).any()), "full": full}

    def view(self, name: str, view: View) -> dict[str, Any]:
        pictures = {"made": view.made} | ({} if view.taken is None else {"taken": view.taken})
        about: dict[str, Any] = {}
        for kind, picture in pictures.items():
            values, scale = scaled(picture, _LINE_INTEGRAL_STEP)
            self.texts[f"{name}-{kind}"] = packed(values)
            about[kind] = {**told(values.shape, scale), "id": f"{name}-{kind}"}
        g = view.geometry
        return {
            **about,
            "name": view.name,
            "angle": view.angle_deg,
            "geometry": {"sad": g.sad_mm, "sid": g.sid_mm, "detector": g.detector_mm},
            # The patient's right on the left, whichever side the X-rays came from.
            "mirrored": column_direction(view.angle_deg)[0] < -1e-6,
            "white": _rounded(max(float(np.nanquantile(p, _STRONG)) for p in pictures.values())),
            "error": _finite(view.relative_l2),
            "floor": _finite(view.floor),
            "pose": view.pose.matrix().tolist(),
            "notes": view.notes,
        }


def _notes(volume: Volume, max_size: int, compared: bool) -> list[str]:
    """What a reader has to know before believing the page."""
    notes = []
    shape = " × ".join(map(str, volume.values.shape[::-1]))
    if max(volume.values.shape) > max_size:
        kept = " × ".join(str(min(n, max_size)) for n in volume.values.shape[::-1])
        notes.append(
            f"Shown with {kept} voxels, each a mean, of the file's {shape} (--max-size {max_size}). "
            "Projections are of the whole."
        )
    centre = volume.centre_mm
    if centre is None:
        notes.append("The file does not say where it lies: positions count from the volume's middle.")
    elif any(abs(c) > d / 2 for c, d in zip(centre, volume.spacing_mm, strict=True)):
        place = ", ".join(f"{c:.1f}" for c in centre[::-1])
        notes.append(
            f"The volume's middle lies at {place} mm (x, y, z), not at the origin. It is projected about its "
            "middle" + (": X-rays taken about another isocentre do not fit." if compared else ".")
        )
    return notes


def _notes_of_maps(volume: Volume, maps: Mapping[str, Volume]) -> list[str]:
    """Where a map is of another reconstruction, and where doubt is a spread and no error."""
    notes = []
    for name, image in maps.items():
        keys = [key for key in _MADE_FROM if key in image.header and key in volume.header]
        if any(image.header[key] != volume.header[key] for key in keys):
            notes.append(f"The map of {name} is of another reconstruction: its header names another source.")
        if image.header.get("xr2ct_doubt_calibrated") == "no":
            notes.append("Doubt is not calibrated: how far volumes lie apart, not how far off they are.")
    return notes


def _facts(
    path: Path, volume: Volume, views: Sequence[View], others: Mapping[str, Path | None]
) -> dict[str, str]:
    """What is said of the volume: its files, its grid, the machine."""
    shape, spacing = volume.values.shape[::-1], volume.spacing_mm[::-1]
    facts = {
        "file": path.name,
        "voxels (x, y, z)": " × ".join(map(str, shape)),
        "of mm": " × ".join(f"{d:.4g}" for d in spacing),
        "HU": f"{volume.values.min():.0f} to {volume.values.max():.0f}",
        **{name: other.name for name, other in others.items() if other is not None},
    }
    machines = [
        f"SAD {g.sad_mm:g}, SID {g.sid_mm:g}, detector {g.detector_mm:g} mm, {g.pixels}² pixels"
        for g in (view.geometry for view in views)
    ]
    facts["projected with"] = "; ".join(dict.fromkeys(machines))
    return facts | {"page by": f"xr2ct {__version__}"}


def _headers(volumes: Sequence[Volume]) -> dict[str, str]:
    """What the volume's header says, and then what those of its maps say beside it."""
    told: dict[str, str] = {}
    for volume in volumes:
        told |= {key: value for key, value in sorted(volume.header.items()) if key not in told}
    return told


def _render(
    about: dict[str, Any], texts: Mapping[str, str], notes: Sequence[str], facts: Mapping[str, str]
) -> str:
    part = {name: (files(__package__) / name).read_text("utf-8") for name in ("page.html", "page.css")}
    script = "\n".join((files(__package__) / name).read_text("utf-8") for name in _SCRIPTS)
    return Template(part["page.html"]).substitute(
        title=html.escape(about["title"]),
        style=part["page.css"],
        script=script,
        about=json.dumps(about, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c"),
        notes="".join(f"<li>{html.escape(note)}</li>" for note in notes),
        facts="".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items()),
        arrays="\n".join(
            f'<script type="application/octet-stream" id="{name}">{text}</script>'
            for name, text in texts.items()
        ),
    )


def _rounded(value: float) -> float:
    """To two digits, upwards; 1 for 0."""
    if value <= 0:
        return 1.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.6g}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
