"""A cluster as a YAML file: `slurm/profiles/NAME.yaml`, or the path of one anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from xr2ct.config import Section, read_yaml, validate
from xr2ct.errors import UserError, nearest

PROFILES = Path(__file__).resolve().parent.parent / "slurm" / "profiles"


class Profile(Section):
    """Where and how jobs run."""

    executor: Literal["local"]
    """submitit's executor."""
    tasks_per_node: int = Field(1, ge=1)
    """Ranks; one a GPU, or one a share of the cores."""
    gpus_per_node: int = Field(0, ge=0)
    time_limit_min: int = Field(60, ge=1)


def load_profile(name: str) -> Profile:
    """The profile of that name or path; `UserError` naming the nearest one, or the wrong key."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        raise UserError(f"--cluster {name}: no such profile; {nearest(name, known)}")
    return validate(Profile, read_yaml(path), str(path))
