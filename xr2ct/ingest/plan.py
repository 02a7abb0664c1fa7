"""Which case goes to which row, and which arrays there are: fixed and on disk before any worker starts."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError
from xr2ct.run import write_atomically
from xr2ct.store import layout
from xr2ct.store.layout import XraySet

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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
    sizes: tuple[int, ...] = ()
    xrays: tuple[XraySet, ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that every visible case has."""
        names = (layout.xray_array(x.geometry.name) for x in self.xrays)
        return (*map(layout.ct_array, self.sizes), *names)

    def save(self, store: Path) -> None:
        values = {
            "xr2ct_schema": layout.SCHEMA,
            "cohort": self.cohort,
            "cube_mm": self.cube_mm,
            "sizes": self.sizes,
            "xrays": [x.as_attributes() for x in self.xrays],
            "rows": [asdict(r) for r in self.rows],
        }
        write_atomically(layout.plan_file(store), json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, store: Path) -> Plan | None:
        """The plan of a store; None where it has none yet."""
        file = layout.plan_file(store)
        if not file.is_file():
            return None
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        layout.check_schema(store, values)
        return cls(
            values["cohort"],
            values["cube_mm"],
            tuple(values["sizes"]),
            tuple(XraySet.from_attributes(x) for x in values["xrays"]),
            tuple(Row(**r) for r in values["rows"]),
        )

    def with_arrays(self, store: Path, sizes: Sequence[int], xrays: Sequence[XraySet]) -> Plan:
        """The same with more arrays; `UserError` where a geometry of that name is another one."""
        held = {x.geometry.name: x for x in self.xrays}
        for wanted in xrays:
            name = wanted.geometry.name
            there = held.setdefault(name, wanted)
            if there.geometry != wanted.geometry or not set(wanted.angles) <= set(there.angles):
                raise UserError(
                    f"{store}: its xray/{name} is {_told(there)}; asked for was {_told(wanted)}: "
                    "give the other geometry a name of its own, or use a new store"
                )
        return replace(self, sizes=tuple(sorted({*self.sizes, *sizes})), xrays=tuple(held.values()))

    def with_cases(self, sources: Sequence[Source], splits: Mapping[str, str]) -> Plan:
        """The same with a row for every source that has none, in the order of their case IDs.

        `splits` is by the patient as the source has it. A patient already in the store keeps theirs.
        """
        held = {r.key for r in self.rows}
        new = [s for s in sources if row_key(s) not in held]
        series = Counter([r.patient for r in self.rows] + [safe_name(s.patient) for s in new])
        rows = []
        for source in new:
            patient, study, uid = row_key(source)
            case = patient if series[patient] == 1 else f"{patient}-{short_hash(study, uid)}"
            rows.append(Row(case, patient, study, uid, splits[source.patient]))
        rows = [*self.rows, *sorted(rows, key=lambda r: r.case)]
        assert len({r.case for r in rows}) == len(rows)
        return replace(self, rows=tuple(rows))


def short_hash(*parts: str) -> str:
    """Twelve hexadecimal digits that stand for an identifier."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def safe_name(patient: str) -> str:
    """A patient's ID as it is where it is fit for a file's name, and a hash of it elsewhere.

    Nothing readable is kept of the others: what breaks the rule is often a person's name.
    """
    return patient if SAFE_NAME.fullmatch(patient) else f"patient-{short_hash(patient)}"


def row_key(source: Source) -> tuple[str, str, str]:
    """`Row.key` of a source."""
    return (safe_name(source.patient), short_hash(source.study), short_hash(source.series))


def _told(xray: XraySet) -> str:
    g = xray.geometry
    angles = ",".join(f"{a:g}" for a in xray.angles)
    return (
        f"sad {g.sad_mm:g} sid {g.sid_mm:g} detector {g.detector_mm:g} mm, {g.pixels} pixels, angles {angles}"
    )
