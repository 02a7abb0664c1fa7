"""Components by name: a method or a network is one file, found by its name, that owns its configuration."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from xr2ct.errors import UserError, nearest


def component(package: str, name: str) -> ModuleType:
    """The module `package.name` that defines a `Config` and a `build`; `UserError` naming the nearest one.

    Hyphens in names are underscores in files: ``component("xr2ct.methods", "neural-ot")``.
    """
    parent = importlib.import_module(package)
    found = {m.name.replace("_", "-") for m in pkgutil.iter_modules(parent.__path__)}
    if name in found:
        module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
        if hasattr(module, "Config") and hasattr(module, "build"):
            return module
    kind = package.rsplit(".", 1)[-1]
    raise UserError(f"unknown name {name!r} in {kind}: {nearest(name, found - {'base'})}")
