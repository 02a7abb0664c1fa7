"""Typed configuration: YAML in, validated whole, written out again as it was run.

A file may inherit from others with ``base: other.yaml`` (or a list of them); dictionaries merge, everything
else replaces. Overrides are ``key.sub=value`` with the value read as YAML. Unknown keys are refused with the
nearest valid one. `mapper` and `method` name a component whose own file owns and validates its keys.
``sweep: {key.sub: [value, …]}`` makes one file many experiments: every combination of its values.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xr2ct.cohorts.names import COHORTS, IN_DISTRIBUTION, check_cohort
from xr2ct.errors import UserError, nearest
from xr2ct.projection.geometry import parse_angle

T = TypeVar("T", bound=BaseModel)

_KEY = r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*"


class Section(BaseModel):
    """A part of a configuration: frozen, and refusing keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """What is learnt from and tested on."""

    stores: Path = Path("stores")
    """Folder with one store a cohort, COHORT.zarr."""
    cohort: str = IN_DISTRIBUTION
    """The cohort trained on."""
    size: int = Field(64, ge=16)
    """Voxels along each side of the volume."""
    geometry: str = "x2ct"
    """Name of the store's set of X-rays."""
    views: tuple[float, ...] = (90.0, 0.0)
    """Angles in degrees or view names, in the order of the mapper's channels."""
    hu_window: tuple[float, float] = (-1024.0, 1476.0)
    """HU mapped to [0, 1]."""
    scaling: Literal["window", "minmax"] = "window"
    """`minmax` is the paper's per-volume scaling; figures under it stand in no common column with others."""
    xray_scale: Literal["max"] | float = "max"
    """Views are divided by their own maximum, or by this line integral."""
    train_cases: int | None = Field(None, ge=1)
    """Learn from the first so many of the seeded order of the training split; all where unset."""

    def store(self, cohort: str) -> Path:
        """Where the store of a cohort is, whether or not it is there."""
        return self.stores / f"{cohort}.zarr"

    @field_validator("views", mode="before")
    @classmethod
    def _angles(cls, value: Any) -> Any:
        views = value if isinstance(value, list | tuple) else [value]
        angles = tuple(parse_angle(str(v)) for v in views)
        if not angles or len(set(angles)) != len(angles):
            raise ValueError("expected at least one view, each angle once")
        return angles

    @field_validator("cohort")
    @classmethod
    def _cohort(cls, value: str) -> str:
        return check_cohort(value)


class Augmentation(Section):
    """Of training X-rays; one draw for all views of a patient."""

    contrast: tuple[float, float] | None = (0.5, 1.5)
    """Range of the factor about the picture's mean; off where null."""
    rotation_deg: float = Field(10.0, ge=0)
    """Largest rotation of the pictures in their plane."""
    rotation_probability: float = Field(0.3, ge=0, le=1)
    flip: Literal["patient", "xray", "none"] = "patient"
    """`patient` mirrors volume and views together; `xray` the pictures alone, as the paper does."""
    flip_probability: float = Field(0.5, ge=0, le=1)


class Lift(Section):
    """How a view becomes a volume."""

    kind: Literal["repeat", "rotate", "backproject", "noise"] = "repeat"
    """`repeat` copies a view along the grid axis nearest its beam; `rotate` copies it along the frontal axis
    and turns the volume to the view's angle; `backproject` reads it where each voxel's own ray meets the
    detector; `noise` puts it into one slice, with normal noise in all others (the paper's ablation)."""
    scale: Literal["isocentre", "stretch"] = "isocentre"
    """A pixel's size in the volume: its pitch at the isocentre, or the picture stretched to the cube. Of no
    meaning to `backproject`."""
    noise: Literal["patient", "iteration"] = "patient"
    """Of `noise`: fixed for each patient, or drawn again for each sample of training."""


class Optimizer(Section):
    """AdamW, the same for every network; without weight decay it is Adam."""

    lr_per_sample: float = Field(1e-5, gt=0)
    """The peak learning rate is this times the global batch (8 → 8e-5)."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    gradient_clipping: float = Field(0.0, ge=0)
    """Largest norm of a network's gradient; 0 leaves it alone."""


class Ema(Section):
    """An exponential moving average of the mapper's weights."""

    decay: float = Field(0.995, ge=0, lt=1)
    every: int = Field(5, ge=1)
    """Outer steps between two updates of the average."""


class Training(Section):
    """The loop."""

    steps: int = Field(5000, ge=1)
    """Outer steps; each is as many batches as the method draws."""
    warmup_steps: int = Field(1500, ge=0)
    """The learning rate rises from 0 to its peak over these, then falls linearly to 0 at `steps` + 1."""
    decay_after: int | None = Field(None, ge=0)
    """The outer step at which the fall begins; the end of the warm-up where unset."""
    batch: int = Field(8, ge=1)
    """Global batch: over all ranks and accumulation steps. What optimal transport sees."""
    accumulation: int = Field(1, ge=1)
    """Micro-batches a rank works through for one update."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` times one training step in fp32 and bf16 on the device, once, and keeps the faster."""
    zero_stage: int = Field(0, ge=0, le=3)
    ema: Ema = Ema()
    checkpoint_every: int = Field(250, ge=1)
    """Outer steps; the last step always leaves one, and step 0 too."""
    keep_engines: int = Field(2, ge=1)
    """Newest checkpoints that keep the full state to resume from; older ones keep weights."""
    threads: int | None = Field(None, ge=1)
    """CPU threads a rank; cores divided by local ranks where unset."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Evaluation(Section):
    """What is scored, and how."""

    cohorts: tuple[str, ...] = COHORTS
    weights: Literal["mapper", "mapper-ema"] = "mapper"
    batch: int = Field(4, ge=1)
    reprojection: bool = True
    """Project each reconstruction again and compare with the X-ray that came in."""

    @field_validator("cohorts")
    @classmethod
    def _cohorts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_cohort(c) for c in value)


class Tracking(Section):
    """MLflow. Metrics are in the run's own files first; this is a copy."""

    enabled: bool = True
    uri: str | None = None
    """A server or ``sqlite:///path``; sqlite beside the runs (RUN_ROOT/mlflow.db) where unset."""
    experiment: str = "xr2ct"
    system_metrics: bool = True


class Resolved(Section):
    """What was found out once, when the run began; never written by hand."""

    precision: Literal["fp32", "bf16", "fp16"]
    world_size: int
    geometry: dict[str, Any]
    """sad_mm, sid_mm, detector_mm, pixels of the X-rays."""
    cube_mm: float
    stores: dict[str, str]
    """Checksum of each store at the start, by cohort."""
    excluded: dict[str, list[str]] = {}
    """Cases that its exclude.csv left out at the start, by cohort."""
    versions: dict[str, str]
    commit: str | None = None


class Experiment(Section):
    """One experiment: everything that a run depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = 0
    run_root: Path = Path("runs")
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    lift: Lift = Lift()
    mapper: dict[str, Any] = {"name": "swin-unetr"}
    """`name` of a network in xr2ct/models/, and its keys."""
    method: dict[str, Any] = {"name": "neural-ot"}
    """`name` of a file in xr2ct/methods/, and its keys."""
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()
    deepspeed: dict[str, Any] = {}
    """DeepSpeed's own keys, passed through to every engine."""
    resolved: Resolved | None = None

    @model_validator(mode="after")
    def _warmup(self) -> Experiment:
        if self.training.warmup_steps >= self.training.steps:
            raise ValueError(
                f"training.warmup_steps ({self.training.warmup_steps}) must be below "
                f"training.steps ({self.training.steps})"
            )
        after = self.training.decay_after
        if after is not None and not self.training.warmup_steps <= after <= self.training.steps:
            raise ValueError(
                f"training.decay_after ({after}) must be from training.warmup_steps "
                f"({self.training.warmup_steps}) to training.steps ({self.training.steps})"
            )
        return self

    @field_validator("lift", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        """``lift: rotate`` for ``lift: {kind: rotate}``."""
        return {"kind": value} if isinstance(value, str) else value


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in a YAML file with its bases and overrides; `UserError` naming file, key and value.

    Of a sweep, the member that the overrides choose.
    """
    values, sweep = _read_with_sweep(Path(path), overrides)
    if sweep:
        example = " ".join(override_text(key, choices[0]) for key, choices in sweep.items())
        raise UserError(
            f"{path}: a sweep over {', '.join(sweep)}: choose a member, as '{example}', or submit it whole"
        )
    return _experiment(values, overrides, str(path))


def load_members(path: Path, overrides: Sequence[str] = ()) -> list[tuple[Experiment, list[str]]]:
    """Every experiment of a YAML file, each with the overrides that choose it: the combinations of its
    `sweep`, the last key fastest, or the one experiment of a file without. An override of a swept key
    leaves that value alone.

    Raises `UserError` as `load_experiment` does, and where two members would share a run's folder.
    """
    values, sweep = _read_with_sweep(Path(path), overrides)
    members: list[tuple[Experiment, list[str]]] = []
    folders: dict[Path, str] = {}
    for choice in itertools.product(*sweep.values()):
        chosen = [override_text(key, value) for key, value in zip(sweep, choice, strict=True)]
        told = [*overrides, *chosen]
        where = f"{path} with {' '.join(chosen)}" if chosen else str(path)
        experiment = _experiment(copy.deepcopy(values), told, where)
        folder = run_path(experiment, told)
        if folder in folders:
            raise UserError(f"{where}: its run would be {folder}, which is that of {folders[folder]}")
        folders[folder] = where
        members.append((experiment, told))
    return members


def override_text(key: str, value: Any) -> str:
    """The override that sets `key` to `value`."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"{key}={text if yaml.load(text, Loader=_Loader) == value else json.dumps(value)}"


def _experiment(values: dict[str, Any], overrides: Sequence[str], where: str) -> Experiment:
    for override in overrides:
        key, value = parse_override(override)
        _set(values, key, value)
    return validate(Experiment, values, where)


def _read_with_sweep(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """A file's values, and what of its sweep the overrides leave open."""
    values = _read_with_bases(path, ())
    sweep = values.pop("sweep", {})
    if not isinstance(sweep, dict):
        raise UserError(f"{path}: sweep: expected key.sub: [values], got {sweep!r}")
    for key, choices in sweep.items():
        if not isinstance(key, str) or not re.fullmatch(_KEY, key):
            raise UserError(f"{path}: sweep: expected key.sub, got {key!r}")
        if not isinstance(choices, list) or not choices:
            raise UserError(f"{path}: sweep: {key}: expected a list of values, got {choices!r}")
        if above := next((k for k in sweep if key.startswith(f"{k}.")), None):
            raise UserError(f"{path}: sweep: {key} is within {above}, which is swept too")
    stated = {parse_override(override)[0] for override in overrides}
    return values, {key: choices for key, choices in sweep.items() if key not in stated}


def parse_override(text: str) -> tuple[str, Any]:
    """``key.sub=value`` with the value read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not re.fullmatch(_KEY, key):
        raise UserError(f"override {text!r}: expected key.sub=value")
    try:
        return key, yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"override {text!r}: the value is not YAML ({_first_line(error)})") from None


def validate(model: type[T], values: Any, where: str) -> T:
    """`values` as a `model`; `UserError` naming every wrong key with the nearest valid one."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected keys and values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe(model, e) for e in error.errors(include_url=False)]
        raise UserError("\n".join(f"{where}: {line}" for line in lines)) from None


def dump(experiment: Experiment) -> str:
    """YAML that `load_experiment` reads back to an equal experiment."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def run_path(experiment: Experiment, overrides: Sequence[str] = ()) -> Path:
    """Where a run lives: run_root / name, with its overrides appended (hashed where they grow long)."""
    told = sorted(o for o in overrides if not o.startswith(("run_root=", "tracking.", "name=")))
    suffix = "+".join(re.sub(r"[^\w.=-]+", "_", o) for o in told)
    if len(suffix) > 100:
        suffix = hashlib.sha256(suffix.encode()).hexdigest()[:12]
    return experiment.run_root / (f"{experiment.name}+{suffix}" if suffix else experiment.name)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines ``key: old → new`` for every leaf in which two configurations differ."""
    lines = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} → {b}")
    return lines


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: 1e-5 is a number, as everybody who writes it expects; and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> Any:
    """The values in a YAML file; `UserError` naming the file and the line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({_first_line(error)})") from None


def _read_with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise UserError(f"{path}: inherits from itself by way of {above[-1]}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, found {type(values).__name__}")
    bases = values.pop("base", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        _merge(merged, _read_with_bases(path.parent / base, (*above, path.resolve())))
    _merge(merged, values)
    return merged


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"override {key}={value}: {parent!r} is a value, not a section")
    values[leaf] = value


def _describe(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One validation error as ``key: what is wrong, with the nearest valid key``."""
    *parents, leaf = [str(part) for part in error["loc"]] or [""]
    key = ".".join([*parents, leaf])
    if error["type"] == "extra_forbidden":
        section: Any = model
        for parent in parents:
            section = section.model_fields[parent].annotation
        return f"unknown key {key!r}: {nearest(leaf, section.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    told = "" if isinstance(given, Mapping) or error["type"] == "missing" else f", got {given!r}"
    return f"{key}: {message}{told}" if key else f"{message}{told}"


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or str(error).splitlines()[0])
