"""Small stores of simple chests, a mapper of a few weights, and runs whose checkpoints it fills."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import xr2ct.models
from xr2ct.config import Experiment, dump, validate
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.run import Run, write_atomically
from xr2ct.seeds import generator
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet

CUBE_MM = 320.0
SIZE = 32
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=64)
ANGLES = (0.0, 90.0)

TINY = '''
"""A backbone of a few weights."""

from __future__ import annotations

from torch import nn

from xr2ct.config import Section


class Config(Section):
    """None."""


def build(config: Config, in_channels: int, size: int) -> nn.Module:
    return nn.Conv3d(in_channels, 1, 3, padding=1)
'''


def chest(seed: int, size: int) -> np.ndarray:
    """int16 HU (z, y, x) of an elliptic body with two lungs and a spine, varied by its seed."""
    rng = generator(seed, "chest")
    z, y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size * 2 - 1] * 3, indexing="ij")
    width, depth, lung, shift = rng.uniform([0.7, 0.45, 0.22, -0.05], [0.85, 0.6, 0.3, 0.05])
    hu = np.full((size,) * 3, -1000.0)
    hu[(x / width) ** 2 + (y / depth) ** 2 < 1] = 40
    for side in (-1, 1):
        within = ((x - side * 0.36 - shift) / lung) ** 2 + (y / 0.35) ** 2 + (z / 0.7) ** 2 < 1
        hu[within] = -820
    hu[(x - shift) ** 2 + (y - 0.3) ** 2 < 0.01] = 900
    return hu.astype(np.int16)


def write_store(
    folder: Path, cohort: str, splits: dict[str, int], *, geometry: Geometry = GEOMETRY, seed: int = 0
) -> Store:
    """FOLDER/COHORT.zarr with so many patients a split, X-rays from a grid finer than the volumes."""
    path = folder / f"{cohort}.zarr"
    names = [(split, i) for split, count in splits.items() for i in range(count)]
    write.lay_out(path, cohort, CUBE_MM, len(names), [SIZE], [XraySet(geometry, ANGLES)])
    rows = []
    for row, (split, i) in enumerate(names):
        number = 1000 * seed + row
        fine = torch.from_numpy(chest(number, 2 * SIZE))[None].float()
        spacing = (CUBE_MM / (2 * SIZE),) * 3
        lines = project(attenuation(fine), spacing, geometry, ANGLES)[0].numpy()
        coarse = torch.nn.functional.avg_pool3d(fine[None], 2)[0, 0].round().numpy().astype(np.int16)
        sums = {
            f"ct/{SIZE}": write.write_chunk(path, f"ct/{SIZE}", row, coarse),
            f"xray/{geometry.name}": write.write_chunk(path, f"xray/{geometry.name}", row, lines),
        }
        case = f"{cohort}-{split}{i}"
        write.write_case(path, case, {"checksums": sums})
        rows.append({"id": case, "patient": case, "split": split, "row": row})
    write.publish(path, rows, [SIZE], [geometry.name])
    return Store.open(path)


@pytest.fixture(scope="session", autouse=True)
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`mapper: {name: tiny}` for these tests alone."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.py").write_text(TINY)
    xr2ct.models.__path__.append(str(folder))
    yield
    xr2ct.models.__path__.remove(str(folder))
    sys.modules.pop("xr2ct.models.tiny", None)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lidc-idri with every split, and lctsc; read only. The other cohorts are not there."""
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder, "lidc-idri", {"train": 4, "val": 3, "test": 2})
    write_store(folder, "lctsc", {"train": 1, "test": 2}, seed=1)
    return folder


MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, stores: Path) -> MakeRun:
    """make_run({step: bias of the mapper's output}, data.key=value …): a run with those checkpoints."""

    def make(checkpoints: dict[int, float], **data: object) -> Run:
        experiment = validate(
            Experiment,
            {
                "name": "run",
                "data": {"stores": str(stores), "size": SIZE, "views": [90, 0], **data},
                "mapper": {"name": "tiny"},
                "evaluation": {"batch": 2},
                "training": {"device": "cpu"},
                "resolved": {
                    "precision": "fp32",
                    "world_size": 1,
                    "geometry": GEOMETRY.as_attributes(),
                    "cube_mm": CUBE_MM,
                    "stores": {},
                    "versions": {},
                },
            },
            "test",
        )
        run = Run(tmp_path_factory.mktemp("run"))
        write_atomically(run.config_file, dump(experiment))
        for step, bias in checkpoints.items():
            add_checkpoint(run, step, bias)
        return run

    return make


@pytest.fixture
def store_writer() -> Callable[..., Store]:
    """store_writer(folder, cohort, {split: patients}, geometry=…, seed=…)."""
    return write_store


@pytest.fixture
def checkpoint_writer() -> Callable[[Run, int, float], None]:
    """checkpoint_writer(run, step, bias)."""
    return add_checkpoint


def add_checkpoint(run: Run, step: int, bias: float) -> None:
    """A whole checkpoint whose mapper gives `bias` everywhere."""
    experiment = run.experiment()
    mapper = build_mapper(experiment, GEOMETRY, CUBE_MM)
    weights = {name: torch.zeros_like(value) for name, value in mapper.state_dict().items()}
    weights["backbone.bias"] += bias
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    save_file(weights, folder / "mapper.safetensors")
    save_file(weights, folder / "mapper-ema.safetensors")
    (folder / "config.yaml").write_text(dump(experiment), encoding="utf-8")
    (folder / "COMPLETE").write_text("{}", encoding="utf-8")
