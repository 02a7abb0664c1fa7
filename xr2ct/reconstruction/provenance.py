"""What a volume says of where it came from: enough to make it again, and nothing that names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xr2ct import __version__
from xr2ct.config import Way
from xr2ct.provenance import sha256
from xr2ct.stages import Stages


def provenance(
    checkpoint: Path,
    stages: Stages,
    files: Mapping[float, Path],
    *,
    way: Way | None = None,
    self_test: str = "none",
) -> dict[str, str]:
    """The header of a volume that `stages`, loaded from `checkpoint`, made of X-rays by angle in degrees.

    X-rays are told by the digests of their files, never by their names. No date is in it: the same request
    writes the same bytes. self_test: as `self_test.self_test` says.
    """
    way, model = way or Way(), stages.model
    digests = ((f"{angle:g}", sha256(file)) for angle, file in files.items())
    weights = checkpoint / f"{stages.which}.safetensors"
    return {
        "xr2ct_version": __version__,
        "xr2ct_experiment": stages.experiment.name,
        "xr2ct_checkpoint": checkpoint.resolve().name if model is None else model.about.stages[0].checkpoint,
        "xr2ct_weights": stages.which,
        "xr2ct_model_sha256": sha256(weights) if model is None else model.sha256,
        "xr2ct_self_test": self_test,
        "xr2ct_way": way.label or "mapper",
        "xr2ct_views_deg": " ".join(f"{angle:g}" for angle in files),
        "xr2ct_views_sha256": " ".join(f"{angle}:{digest}" for angle, digest in digests),
    }
