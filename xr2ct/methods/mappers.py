"""The method that an experiment names, and the mapper as that method trains it and a checkpoint holds it."""

from __future__ import annotations

from types import ModuleType

from xr2ct.config import Experiment, Section, validate
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.registry import component


def method_of(experiment: Experiment) -> tuple[ModuleType, Section]:
    """Its module in `xr2ct.methods` and its keys; `UserError` for an unknown name or a wrong key."""
    keys = dict(experiment.method)
    name = keys.pop("name")
    module = component("xr2ct.methods", name)
    config: Section = validate(module.Config, keys, f"method {name}")
    return module, config


def mapper_of(experiment: Experiment, geometry: Geometry, cube_mm: float) -> Mapper:
    """The mapper of an experiment, with its initial weights, without the rest of its method.

    Its network as `build_mapper` makes it, unless the method's module has a ``make_mapper(config, experiment,
    geometry, cube_mm)``. Raises `UserError` as that does.
    """
    module = component("xr2ct.methods", experiment.method["name"])
    if not hasattr(module, "make_mapper"):
        return build_mapper(experiment, geometry, cube_mm)
    mapper: Mapper = module.make_mapper(method_of(experiment)[1], experiment, geometry, cube_mm)
    return mapper
