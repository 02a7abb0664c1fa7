"""Which case goes to which row, and which arrays there are: fixed and on disk before any worker starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from xr2ct.cohorts.pseudonyms import Names, short_hash
from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError
from xr2ct.projection.geometry import Geometry
from xr2ct.run import write_atomically
from xr2ct.store import layout
from xr2ct.store.layout import XraySet

Key = tuple[str, str, str]
"""Patient, study and series by a cohort's own names: what ties a row to its source."""

Group = tuple[str, ...]
"""A patient, or a patient's study: what a cohort's rule takes one scan of."""


@dataclass(frozen=True)
class Row:
    """One planned case. Its place in the plan is its row in every array."""

    case: str
    patient: str
    study: str
    series: str
    split: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What ties a row to its source, without the source's own identifiers."""
        return (self.patient, self.study, self.series)


@dataclass(frozen=True)
class Plan:
    """STORE/plan.json."""

    cohort: str
    cube_mm: float
    remove_table: bool = False
    salt_id: str = ""
    """`Names.salt_id` of whoever named the rows."""
    sizes: tuple[int, ...] = ()
    xrays: tuple[XraySet, ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that every visible case has."""
        names = (layout.xray_array(x.geometry.name) for x in self.xrays)
        return (*map(layout.ct_array, self.sizes), *names)

    def save(self, store: Path) -> None:
        """Write STORE/plan.json where it says something else."""
        values = {
            "xr2ct_schema": layout.SCHEMA,
            "cohort": self.cohort,
            "cube_mm": self.cube_mm,
            "remove_table": self.remove_table,
            "salt_id": self.salt_id,
            "sizes": self.sizes,
            "xrays": [x.as_attributes() for x in self.xrays],
            "rows": [asdict(r) for r in self.rows],
        }
        text = json.dumps(values, indent=1) + "\n"
        file = layout.plan_file(store)
        if not file.is_file() or file.read_bytes() != text.encode():
            write_atomically(file, text)

    @classmethod
    def load(cls, store: Path) -> Plan | None:
        """The plan of a store, None where it has none yet; `StoreError` where the file is damaged."""
        values = layout.read_json(store, layout.plan_file(store))
        if values is None:
            return None
        layout.check_schema(store, values)
        return cls(
            values["cohort"],
            values["cube_mm"],
            values.get("remove_table", False),
            values.get("salt_id", ""),
            tuple(values["sizes"]),
            tuple(XraySet.from_attributes(x) for x in values["xrays"]),
            tuple(Row(**r) for r in values["rows"]),
        )

    def with_arrays(self, store: Path, sizes: Sequence[int], xrays: Sequence[XraySet]) -> Plan:
        """The same with more arrays and angles; `UserError` where a geometry of that name is another one."""
        held = {x.geometry.name: x for x in self.xrays}
        for wanted in xrays:
            name = wanted.geometry.name
            there = held.setdefault(name, wanted)
            if there.geometry != wanted.geometry:
                raise UserError(
                    f"{store}: its xray/{name} is {_told(there.geometry)}; asked for was "
                    f"{_told(wanted.geometry)}: give the other geometry a name of its own, or use a new store"
                )
            new = tuple(a for a in wanted.angles if a not in there.angles)
            held[name] = replace(there, angles=(*there.angles, *new))
        return replace(self, sizes=tuple(sorted({*self.sizes, *sizes})), xrays=tuple(held.values()))

    def with_cases(self, new: Mapping[Key, str]) -> Plan:
        """The same with a row for every key that has none, in the order of their case IDs.

        `new` gives the split of each. A patient already in the store keeps theirs.
        """
        held = {r.key for r in self.rows}
        splits = {r.patient: r.split for r in self.rows}
        fresh = [key for key in new if key not in held]
        series = Counter([r.patient for r in self.rows] + [key[0] for key in fresh])
        rows = [Row(case_id(key, series[key[0]] == 1), *key, splits.get(key[0], new[key])) for key in fresh]
        rows = [*self.rows, *sorted(rows, key=lambda r: r.case)]
        assert len({r.case for r in rows}) == len(rows)
        return replace(self, rows=tuple(rows))

    def with_series(self, index: int, key: Key) -> Plan:
        """The same with another series of the patient in a row that was never filled."""
        row = self.rows[index]
        case = case_id(key, row.case == row.patient)
        taken = Row(case, *key, row.split)
        return replace(self, rows=(*self.rows[:index], taken, *self.rows[index + 1 :]))


def case_id(key: Key, alone: bool) -> str:
    """The patient's name, which a patient's other scans follow with a hash of their own."""
    patient, study, series = key
    return patient if alone else f"{patient}-{short_hash(study, series)}"


def group_of(key: Key, by_study: bool) -> Group:
    return key[:2] if by_study else key[:1]


def row_key(source: Source, names: Names) -> Key:
    """`Row.key` of a source."""
    series = names.series(source.study, source.series)
    return (names.patient(source.patient), names.study(source.study), series)


def _told(g: Geometry) -> str:
    return f"sad {g.sad_mm:g} sid {g.sid_mm:g} detector {g.detector_mm:g} mm, {g.pixels} pixels"
