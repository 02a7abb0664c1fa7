"""Configuration files as plain values: YAML with bases, variants, sweeps and overrides, not yet validated.

``base: other.yaml`` (or a list of them) inherits: dictionaries merge, everything else replaces, and the keys
of a component (`mapper`, `method`) go with its `name`.

``variants: {axis: {choice: {keys}}}`` are named sets of keys. ``axis=choice`` chooses one, the first where
none is chosen, and a sweep may go over an axis as over a key. A set may inherit by a `base` of its own, which
lends it everything but what names an experiment, and may bring variants for the axes after its own. Axes
apply in the order in which a file has them, a file's own before those of its bases. Overrides come last.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from xr2ct.errors import UserError, nearest

_KEY = r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*"

_OF_ONE_EXPERIMENT = ("name", "run_root", "exhibits", "sweep")
"""Keys that a set of a variant does not take over from its base."""

Override = tuple[str, Any]
"""Key and value."""


def read_members(
    path: Path, overrides: Sequence[Override]
) -> Iterator[tuple[dict[str, Any], list[Override], list[Override]]]:
    """Each experiment of a file: its values, what chooses it of the sweep, and the overrides left to set.

    Raises `UserError` naming file and key for a wrong base, variant or sweep.
    """
    raw = _read_with_bases(path, ())
    told = dict(overrides)
    sweep = {
        key: choices for key, choices in _sweep(path, _vary(path, raw, told)[0]).items() if key not in told
    }
    for choice in product(*sweep.values()):
        chosen = list(zip(sweep, choice, strict=True))
        values, axes = _vary(path, raw, told | dict(chosen))
        values.pop("sweep", None)
        left = [(key, value) for key, value in [*overrides, *chosen] if key not in axes]
        yield values, chosen, left


def set_key(values: dict[str, Any], key: str, value: Any) -> None:
    """Set ``key.sub``; `UserError` where a part of it is a value already."""
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"override {key}={value}: {parent!r} is a value, not a section")
    values[leaf] = value


def parse_override(text: str) -> Override:
    """``key.sub=value`` with the value read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not re.fullmatch(_KEY, key):
        raise UserError(f"override {text!r}: expected key.sub=value")
    try:
        return key, yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"override {text!r}: the value is not YAML ({_problem(error)})") from None


def override_text(key: str, value: Any) -> str:
    """The override that sets `key` to `value`."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"{key}={text if yaml.load(text, Loader=_Loader) == value else json.dumps(value)}"


def read_yaml(path: Path) -> Any:
    """The values in a YAML file; `UserError` naming the file and the line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({_problem(error)})") from None


def _sweep(path: Path, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """``key.sub: [values]``, checked."""
    sweep = values.get("sweep", {})
    if not isinstance(sweep, dict):
        raise UserError(f"{path}: sweep: expected key.sub: [values], got {sweep!r}")
    for key, choices in sweep.items():
        if not isinstance(key, str) or not re.fullmatch(_KEY, key):
            raise UserError(f"{path}: sweep: expected key.sub, got {key!r}")
        if not isinstance(choices, list) or not choices:
            raise UserError(f"{path}: sweep: {key}: expected a list of values, got {choices!r}")
        if above := next((k for k in sweep if key.startswith(f"{k}.")), None):
            raise UserError(f"{path}: sweep: {key} is within {above}, which is swept too")
    return sweep


def _vary(
    path: Path, raw: Mapping[str, Any], told: Mapping[str, Any]
) -> tuple[dict[str, Any], Collection[str]]:
    """The values with a set of every axis merged in, the one `told` or the first; and the axes there were."""
    values = copy.deepcopy(dict(raw))
    variants = values.pop("variants", {})
    chosen: dict[str, str] = {}
    while axis := next((a for a in variants if a not in chosen), None):
        sets = variants[axis]
        if isinstance(sets, str):  # as a run's config.yaml records it: merged already
            chosen[axis] = sets
            continue
        choice = str(told.get(axis, next(iter(sets))))
        if choice not in sets:
            raise UserError(f"{path}: variants: {axis}={choice}: {nearest(choice, sets)}")
        chosen[axis] = choice
        keys = copy.deepcopy(sets[choice])
        _merge(variants, keys.pop("variants", {}))
        _merge(values, keys)
    if chosen:
        values["variants"] = chosen
    return values, {axis for axis in variants if not isinstance(variants[axis], str)}


def _read_with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise UserError(f"{path}: inherits from itself by way of {above[-1]}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, found {type(values).__name__}")
    return _with_bases(values, path, (*above, path.resolve()))


def _with_bases(values: dict[str, Any], path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file, or of a set within it, over those of its bases."""
    bases = values.pop("base", [])
    variants = _variants(values.pop("variants", {}), path, above)
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        _merge(merged, _read_with_bases(path.parent / base, above))
    _merge(merged, values)
    # A file's own axes come first: a system says what the scales after it mean.
    inherited = merged.pop("variants", {})
    ordered = {axis: inherited.pop(axis, {}) for axis in variants} | inherited
    _merge(ordered, variants)
    return merged | ({"variants": ordered} if ordered else {})


def _variants(variants: Any, path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if not isinstance(variants, dict) or not all(
        isinstance(sets, str) or (isinstance(sets, dict) and sets) for sets in variants.values()
    ):
        raise UserError(f"{path}: variants: expected axis: {{choice: {{keys}}}}, got {variants!r}")
    return {
        axis: sets
        if isinstance(sets, str)
        else {str(c): _set(keys, axis, path, above) for c, keys in sets.items()}
        for axis, sets in variants.items()
    }


def _set(keys: Any, axis: str, path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A choice's keys over those of its bases."""
    if not isinstance(keys, dict):
        raise UserError(f"{path}: variants: {axis}: expected keys and values, got {keys!r}")
    own = {key: keys[key] for key in _OF_ONE_EXPERIMENT if key in keys}
    values = _with_bases(dict(keys), path, above)
    return {key: value for key, value in values.items() if key not in _OF_ONE_EXPERIMENT} | own


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        there = into.get(key)
        if isinstance(value, Mapping) and isinstance(there, dict) and not _another(there, value):
            _merge(there, value)
        else:
            into[key] = copy.deepcopy(value)


def _another(there: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether these are the keys of two components, of which one knows nothing of the other's."""
    return "name" in there and "name" in value and there["name"] != value["name"]


def _problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or str(error).splitlines()[0])


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
