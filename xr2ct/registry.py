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
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    files = {m.name.replace("_", "-"): f"{package}.{m.name}" for m in modules}
    module = importlib.import_module(files[name]) if isinstance(name, str) and name in files else None
    if module is not None and _is_component(module):
        return module
    valid = [other for other, path in files.items() if _is_component(importlib.import_module(path))]
    kind = package.rsplit(".", 1)[-1]
    raise UserError(f"unknown name {name!r} in {kind}: {nearest(str(name), valid)}")


def _is_component(module: ModuleType) -> bool:
    return hasattr(module, "Config") and hasattr(module, "build")
