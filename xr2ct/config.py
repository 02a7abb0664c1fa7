"""Typed configuration: YAML in, validated whole, written out again as it was run.

Files inherit, and have variants (`config_files`). Overrides are ``key.sub=value`` with the value read as
YAML. Unknown keys are refused with the nearest valid one. `mapper` and `method` name a component whose own
file owns and validates its keys. ``sweep: {key.sub: [value, …]}`` makes one file many experiments: every
combination of its values.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xr2ct.cohorts.names import COHORTS, IN_DISTRIBUTION, check_cohort
from xr2ct.config_files import override_text, parse_override, read_members, set_key
from xr2ct.errors import UserError, nearest
from xr2ct.projection.geometry import parse_angle

T = TypeVar("T", bound=BaseModel)


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
    phantoms: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Cohort → patients: synthetic chests that `xr2ct study` makes where there is no store."""
    train_cases: int | None = Field(None, ge=1)
    """Learn from the first so many of the seeded order of the training split; all where unset."""
    window: int | None = Field(None, ge=16)
    """Side in voxels of the sub-volumes that are learnt from, at places drawn anew; whole volumes where
    unset."""
    finer_than_source: Literal["refuse", "leave_out", "allow"] = "refuse"
    """What becomes of cases to learn from whose slices lie further apart than the volume's voxels: detail
    between slices is then the interpolation's, nobody's anatomy."""

    @property
    def side(self) -> int:
        """Voxels along each side of what the networks are given at a time."""
        return self.size if self.window is None else self.window

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

    @model_validator(mode="after")
    def _window(self) -> Data:
        if self.window is not None and self.window >= self.size:
            raise ValueError(
                f"window ({self.window}) must be below size ({self.size}); unset learns from whole volumes"
            )
        if self.window is not None and self.scaling != "window":
            raise ValueError(
                f"window: needs scaling: window, got {self.scaling}: a part has a range of its own"
            )
        return self

    @field_validator("cohort")
    @classmethod
    def _cohort(cls, value: str) -> str:
        return check_cohort(value)

    @field_validator("phantoms")
    @classmethod
    def _phantoms(cls, value: dict[str, int]) -> dict[str, int]:
        return {check_cohort(cohort): patients for cohort, patients in value.items()}


Range = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
"""Least and most of what is drawn."""


class Randomised(Section):
    """Effects that are each off where null or 0, drawn anew for each place in the sequence of samples."""

    @field_validator("*", mode="after")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError("expected [least, most]")
        return value


class Detector(Randomised):
    """What a detector and its processing make of line integrals, in training alone (`loading/detector.py`).

    Noise, scatter, grid, collimation are drawn for each view; exposure, blur, gamma and window for each
    patient, whose pictures come from one machine.
    """

    probability: float = Field(1.0, ge=0, le=1)
    """Of samples that pass through it; the others stay line integrals."""
    scatter: Range | None = None
    """Scattered over primary radiation behind the patient."""
    scatter_mm: float = Field(40.0, gt=0)
    """Standard deviation of the scatter's spread on the detector."""
    grid: Range | None = None
    """Share of the beam that an anti-scatter grid out of its place keeps back at the side that loses most."""
    grid_lines: Range | None = None
    """Depth of the lines that the grid leaves, as a share of the beam."""
    exposure: Range | None = None
    """Photons a pixel where nothing stands in the beam, drawn by its logarithm: quantum noise."""
    electronic: Range | None = None
    """Standard deviation of read-out noise, in photons a pixel."""
    blur_mm: Range | None = None
    """Standard deviation of the detector's blur."""
    gamma: Range | None = None
    """Power of the tone curve, drawn by its logarithm."""
    window: Range | None = None
    """Percent of the pixels that are clipped to black, and as many again to white."""
    collimation: Range | None = None
    """Share of the picture that each of four blades covers."""
    collimation_probability: float = Field(1.0, ge=0, le=1)

    @property
    def on(self) -> bool:
        """Whether there is any effect."""
        effects = (self.scatter, self.grid, self.grid_lines, self.exposure, self.blur_mm, self.gamma)
        return self.probability > 0 and any((*effects, self.window, self.collimation))

    @model_validator(mode="after")
    def _logarithms(self) -> Detector:
        for name in ("exposure", "gamma"):
            drawn = getattr(self, name)
            if drawn and drawn[0] <= 0:
                raise ValueError(f"{name}: expected figures above 0, got {list(drawn)}")
        if self.electronic and not self.exposure:
            raise ValueError("electronic: is counted in photons, so it needs exposure")
        shares = {"grid": 1.0, "grid_lines": 1.0, "collimation": 0.5, "window": 50.0}
        for name, most in shares.items():
            drawn = getattr(self, name)
            if drawn and drawn[1] >= most:
                raise ValueError(f"{name}: expected figures below {most:g}, got {list(drawn)}")
        return self


class Pose(Randomised):
    """Where tube and patient were otherwise than the geometry says, in training alone (`loading/pose.py`).

    Each view has its own draw, as of a patient who moved in between; the table is the same in all of them.
    The pictures are moved in their plane, which is right for what lies at the isocentre's depth.
    """

    probability: float = Field(1.0, ge=0, le=1)
    sid_mm: Range | None = None
    """Source to detector, the patient staying where he is before the detector."""
    shift_mm: float = Field(0.0, ge=0)
    """Largest shift of the patient along columns, rows and beam, each."""
    rotation_deg: float = Field(0.0, ge=0)
    """Largest rotation of the patient in the plane of the picture."""
    turn_deg: float = Field(0.0, ge=0)
    """Largest rotation about each of the two axes in the picture; needs `reproject`."""
    reproject: int | None = Field(None, ge=16)
    """Side in voxels of the store's volume that is projected in its new pose, finer detail being the
    picture's: right at every depth, at the price of two projections a view."""
    table: Range | None = None
    """Thickness in mm of water that attenuates as a table behind the patient does."""
    table_y_mm: Range = (120.0, 170.0)
    """From the isocentre back to the table's front."""
    table_probability: float = Field(0.5, ge=0, le=1)

    @property
    def moves(self) -> bool:
        """Whether tube or patient are ever elsewhere."""
        return bool(self.sid_mm or self.shift_mm or self.rotation_deg or self.turn_deg)

    @property
    def on(self) -> bool:
        """Whether there is any effect."""
        return self.probability > 0 and (self.moves or bool(self.table))

    @model_validator(mode="after")
    def _turned(self) -> Pose:
        if self.turn_deg and self.reproject is None:
            raise ValueError("turn_deg: no picture can be turned so in its plane; set reproject, as 64")
        return self


class Augmentation(Section):
    """Of training X-rays; contrast, rotation and flip are one draw for all views of a patient.

    `pose` and `detector` change line integrals, before they are scaled, and so before the contrast.
    """

    contrast: tuple[float, float] | None = (0.5, 1.5)
    """Range of the factor about the picture's mean; off where null."""
    rotation_deg: float = Field(10.0, ge=0)
    """Largest rotation of the pictures in their plane."""
    rotation_probability: float = Field(0.3, ge=0, le=1)
    flip: Literal["patient", "xray", "none"] = "patient"
    """`patient` mirrors volume and views together; `xray` the pictures alone, as the paper does."""
    flip_probability: float = Field(0.5, ge=0, le=1)
    detector: Detector = Detector()
    pose: Pose = Pose()


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


class Coarse(Section):
    """The stage before: a run whose reconstruction of the whole chest is a further input, up-sampled."""

    run: Path
    """Of volumes of the same X-rays, coarser or of the same size; its checkpoint is copied into this run
    when that begins."""
    size: int = Field(ge=16)
    """That run's `data.size`."""
    step: Literal["best", "last"] | int = "best"
    """Which of its checkpoints."""
    weights: Literal["mapper", "mapper-ema"] = "mapper"


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
    """`auto` times one pass of the mapper in fp32 and bf16 on a GPU, once, and keeps the faster; on a CPU it
    is fp32, whose bf16 convolutions have wrong weight gradients in torch 2.13."""
    zero_stage: int = Field(0, ge=0, le=3)
    ema: Ema = Ema()
    checkpoint_every: int = Field(250, ge=1)
    """Outer steps; the last step always leaves one, and step 0 too."""
    keep_engines: int = Field(2, ge=1)
    """Newest checkpoints that keep the full state to resume from; older ones keep weights."""
    threads: int | None = Field(None, ge=1)
    """CPU threads a rank; cores divided by local ranks where unset."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


Doubt = Literal["samples", "ensemble", "views"]
"""Where different volumes of the same X-rays come from: the mapper's own draws, the checkpoints of the run,
or the views but one."""


RefinePrior = Literal["none", "tv", "features"]
"""What a refined volume is held by beside its nearness to the mapper's: nothing, the total variation of the
correction, or the features that the mapper was trained by."""


class Way(Section):
    """How a volume is made of a checkpoint: what is done beside one pass of the mapper.

    Of each way a checkpoint has results of its own.
    """

    align: int = Field(0, ge=0)
    """Rounds of estimating how the patient lay in each view but the first, and mapping again; 0 takes every
    view as taken where the geometry says."""
    refine: int = Field(0, ge=0)
    """Most steps towards agreement with the X-rays that came in."""
    prior: RefinePrior = "tv"
    """That refining is held by."""
    samples: int = Field(1, ge=1)
    """Volumes that are drawn, of which the mean is taken."""
    doubt: Doubt | None = None
    """What the voxel-wise standard deviation is taken over; none where unset."""

    @model_validator(mode="after")
    def _drawn(self) -> Way:
        if self.prior != "tv" and not self.refine:
            raise ValueError(f"prior: {self.prior}: goes with refine")
        if self.doubt == "samples" and self.samples < 2:
            raise ValueError(f"doubt: samples: needs at least 2 samples, got {self.samples}")
        if self.doubt in ("ensemble", "views") and self.samples > 1:
            raise ValueError(f"doubt: {self.doubt}: goes with one sample, got {self.samples}")
        if self.doubt == "views" and self.refine:
            raise ValueError(
                "doubt: views: leaves views out, which refine puts back; use ensemble or samples"
            )
        return self

    @property
    def label(self) -> str:
        """As in the names of results, ``align-5+refine-20``; empty for the mapper alone."""
        numbers = {"align": self.align, "refine": self.refine, "samples": self.samples * (self.samples > 1)}
        parts = [f"{name}-{number}" for name, number in numbers.items() if number]
        if self.prior != "tv":
            parts.append(f"prior-{self.prior}")
        return "+".join(parts + [f"doubt-{self.doubt}"] * bool(self.doubt))


class Evaluation(Section):
    """What is scored, and how."""

    cohorts: tuple[str, ...] = COHORTS
    weights: Literal["mapper", "mapper-ema"] = "mapper"
    batch: int = Field(4, ge=1)
    reprojection: bool = True
    """Project each reconstruction again and compare with the X-ray that came in."""
    ways: tuple[Way, ...] = ()
    """Further ways of making each checkpoint's volumes, which are scored beside the mapper's own."""

    @field_validator("ways")
    @classmethod
    def _ways(cls, value: tuple[Way, ...]) -> tuple[Way, ...]:
        labels = [way.label for way in value]
        if "" in labels or len(set(labels)) != len(labels):
            raise ValueError("expected ways that differ from one another and from the mapper alone")
        return value

    @model_validator(mode="after")
    def _with_xrays(self) -> Evaluation:
        if self.ways and not self.reprojection:
            raise ValueError("ways: need reprojection: true, for they are made with the X-rays that came in")
        return self

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
    coarse: str | None = None
    """Digest of the stage before, as it was copied."""


class Experiment(Section):
    """One experiment: everything that a run depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    label: str | None = None
    """What tables and figures call it; its name where unset."""
    seed: int = 0
    run_root: Path = Path("runs")
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    lift: Lift = Lift()
    coarse: Coarse | None = None
    """The stage before, where there is one: of coarser volumes, or of the same size to start from."""
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
    exhibits: tuple[str, ...] = ()
    """Tables and figures that `xr2ct report` makes of it, by name; where empty, those of use to all."""
    variants: dict[str, str] = {}
    """Axis → choice: which of its file's sets of keys it is made of."""
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

    @model_validator(mode="after")
    def _stages(self) -> Experiment:
        data, coarse = self.data, self.coarse
        if coarse is None:
            return self
        if data.size % coarse.size:
            raise ValueError(
                f"coarse.size ({coarse.size}) must be data.size ({data.size}) or a whole part of it"
            )
        if data.scaling != "window":
            raise ValueError(f"coarse: needs data.scaling: window, got {data.scaling}")
        side = self.context_side
        if data.window is None or side is None:
            return self
        if data.size % side or coarse.size % side:
            raise ValueError(
                f"data.window ({data.window}) must be at least coarse.size ({coarse.size}) or a part of it"
            )
        if data.window % self.window_step:
            raise ValueError(
                f"data.window ({data.window}) must be a multiple of {self.window_step}, which is data.size "
                f"over the side of the whole chest around it, {side}"
            )
        return self

    @property
    def context_side(self) -> int | None:
        """Voxels along a side of the whole chest that stands around a sub-volume; None without the two."""
        if self.coarse is None or self.data.window is None:
            return None
        return min(self.coarse.size, self.data.window)

    @property
    def window_step(self) -> int:
        """Voxels between two places where a sub-volume may begin: one voxel of the whole chest around it."""
        return 1 if self.context_side is None else self.data.size // self.context_side

    @field_validator("lift", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        """``lift: rotate`` for ``lift: {kind: rotate}``."""
        return {"kind": value} if isinstance(value, str) else value


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in a YAML file with its bases and overrides; `UserError` naming file, key and value.

    Of a sweep, the member that the overrides choose.
    """
    found = read_members(Path(path), [parse_override(o) for o in overrides])
    values, chosen, left = next(found)
    if chosen:
        example = " ".join(override_text(key, value) for key, value in chosen)
        keys = ", ".join(key for key, _ in chosen)
        raise UserError(f"{path}: a sweep over {keys}: choose a member, as '{example}', or submit it whole")
    return _experiment(values, left, str(path))


def load_members(path: Path, overrides: Sequence[str] = ()) -> list[tuple[Experiment, list[str]]]:
    """Every experiment of a YAML file, each with the overrides that choose it: the combinations of its
    `sweep`, the last key fastest, or the one experiment of a file without. An override of a swept key
    leaves that value alone.

    Raises `UserError` as `load_experiment` does, and where two members would share a run's folder.
    """
    members: list[tuple[Experiment, list[str]]] = []
    folders: dict[Path, str] = {}
    for values, chosen, left in read_members(Path(path), [parse_override(o) for o in overrides]):
        words = [override_text(key, value) for key, value in chosen]
        told = [*overrides, *words]
        where = f"{path} with {' '.join(words)}" if words else str(path)
        experiment = _experiment(values, left, where)
        folder = run_path(experiment, told)
        if folder in folders:
            raise UserError(f"{where}: its run would be {folder}, which is that of {folders[folder]}")
        folders[folder] = where
        members.append((experiment, told))
    return members


def _experiment(values: dict[str, Any], overrides: Sequence[tuple[str, Any]], where: str) -> Experiment:
    for key, value in overrides:
        set_key(values, key, value)
    return validate(Experiment, values, where)


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


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _describe(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One validation error as ``key: what is wrong, with the nearest valid key``."""
    *parents, leaf = error["loc"] or [""]
    key = ".".join(map(str, [*parents, leaf]))
    if error["type"] == "extra_forbidden":
        section: Any = model
        for parent in parents:
            if isinstance(parent, str):  # a number is a place in a list
                section = _section(section.model_fields[parent].annotation)
        return f"unknown key {key!r}: {nearest(str(leaf), section.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    told = "" if isinstance(given, Mapping) or error["type"] == "missing" else f", got {_short(given)}"
    return f"{key}: {message}{told}" if key else f"{message}{told}"


def _short(given: Any) -> str:
    """As Python writes it, but for the middle of what is long: a value from elsewhere may be a whole file."""
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = 120
    return writer.repr(given)


def _section(annotation: Any) -> Any:
    """What a field is, may be, or holds several of; None where that is no section."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)
