"""What a store lost, found out file by file, and its plan put together again from what is left.

Nothing that is whole is touched. A damaged file is taken away first, so that from then on it is one that is
missing: every step may be killed, and the same call goes on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xr2ct.cohorts.catalogue import cohort
from xr2ct.errors import UserError
from xr2ct.ingest.plan import Key, Plan, Row, case_id, group_of
from xr2ct.ingest.report import read_refused
from xr2ct.store import check, layout, write
from xr2ct.store.layout import StoreError

log = logging.getLogger(__name__)

Damaged = dict[str, dict[str, str]]
"""Case → array, or radiograph/NAME, → the checksum that its chunk had."""


def clear_damaged(store: Path) -> None:
    """Take away the JSON files and the refused.csv that cannot be read."""
    for file in [*check.metadata_files(store), *layout.case_files(store)]:
        try:
            layout.read_json(store, file)
            continue
        except StoreError as error:
            log.warning("%s", error)
        file.unlink()
    try:
        read_refused(store)
    except StoreError as error:
        log.warning("%s", error)
        layout.refused_file(store).unlink()


def damaged_chunks(store: Path) -> Damaged:
    """The chunks of every case that has its file, checked one by one."""
    cases = {file.stem: write.read_case(store, file.stem) for file in layout.case_files(store)}
    damaged: Damaged = {}
    for case, wrong in check.damaged_chunks(store, cases).items():
        expected = {**cases[case]["checksums"], **layout.picture_checksums(cases[case])}
        damaged[case] = {array: expected[array] for array in wrong}
        for array, problem in wrong.items():
            log.warning("%s: case %s: its chunk of %s %s", store, case, array, problem)
    for case, about in cases.items():
        for array, checksum in layout.picture_checksums(about).items():
            if not (store / array / "zarr.json").is_file():
                damaged.setdefault(case, {})[array] = checksum
    return damaged


def settle_case_files(store: Path) -> None:
    """Write every cases/ID.json again whose text is not as it was written: its last bytes are missing."""
    for file in layout.case_files(store):
        values = write.read_case(store, file.stem)
        if file.read_text(encoding="utf-8") != write.case_text(values):
            write.write_case(store, file.stem, values)


@dataclass
class Remains:
    """What is left of a store whose plan.json was lost."""

    plan: Plan
    """Without rows."""
    rows: dict[int, Row]
    """Those of which something is left."""
    length: int
    """Rows that there were."""

    def whole(self, splits: Mapping[Key, str]) -> Plan:
        """The plan with every row again; `splits` are of the source's scans that are to be in the store.

        A row of which nothing is left goes to a scan that has none, in the order of their case IDs: the row
        that it had, unless the store grew from several sources. With no scan for it, it stays a hole.
        """
        count = Counter(key[0] for key in splits)
        lost = sorted((case_id(key, count[key[0]] == 1), key) for key in self._without_row(splits))
        rows = dict(self.rows)
        for index in range(self.length):
            if index not in rows and lost:
                case, key = lost.pop(0)
                rows[index] = Row(case, *key, splits[key])
            elif index not in rows:
                hole = f"lost-{index:06d}"
                rows[index] = Row(hole, hole, "", "", "")
        return replace(self.plan, rows=tuple(rows[index] for index in range(self.length)))

    def _without_row(self, keys: Iterable[Key]) -> list[Key]:
        """Scans for which no row stands: neither their own nor that of a spare of the same group."""
        by_study = cohort(self.plan.cohort).rule.scans == "study"
        held = {row.key for row in self.rows.values()}
        others = Counter(group_of(key, by_study) for key in held - set(keys))
        lost = []
        for key in sorted(set(keys) - held):
            if others[group_of(key, by_study)]:
                others[group_of(key, by_study)] -= 1
            else:
                lost.append(key)
        return lost


def remains(store: Path, asked: Plan, yes: Sequence[Key]) -> Remains:
    """From the group's attributes, the arrays and the cases that are left.

    `asked` is what the call asked for, and holds where the group's attributes are lost too; `yes` are the
    source's scans that are to be taken.
    """
    attributes = _attributes_left(store)
    cases = [write.read_case(store, file.stem) for file in layout.case_files(store)]
    rows = {about["row"]: Row(**{k: about[k] for k in ROW_KEYS}) for about in cases}
    for visible in attributes.get("cases", []):
        rows.setdefault(visible["row"], _visible_row(visible, yes))
    arrays = {str(file.parent.relative_to(store)) for file in store.glob("[cx]*/*/zarr.json")}
    lengths = [layout.array_metadata(store, array)["shape"][0] for array in arrays]
    named = {*arrays, *(array for about in cases for array in about["checksums"])}
    sizes = {*attributes.get("sizes", []), *(int(a[3:]) for a in named if a.startswith("ct/"))}
    xrays = tuple(layout.xray_set(store, a[5:]) for a in sorted(arrays) if a.startswith("xray/"))
    about = {"remove_table": False, "salt_id": "", **attributes} if attributes else vars(asked)
    kept = {key: about[key] for key in ("cohort", "cube_mm", "remove_table", "salt_id")}
    log.warning("%s: its plan.json is put together again", store)
    length = max([*lengths, *(index + 1 for index in rows)], default=0)
    return Remains(Plan(**kept, sizes=tuple(sorted(sizes)), xrays=xrays), rows, length)


def check_xrays(store: Path, plan: Plan) -> None:
    """`UserError` where cases have X-rays of which neither array nor plan were left to say what they are, and
    what the call says they are is not it."""
    angles = {x.geometry.name: {f"{a:g}" for a in x.angles} for x in plan.xrays}
    for file in layout.case_files(store):
        case = write.read_case(store, file.stem)
        for array in case["checksums"]:
            name = array.removeprefix("xray/")
            if name != array and angles.get(name) != set(case["outside_beam"][name]):
                held = ",".join(case["outside_beam"][name])
                raise UserError(
                    f"{store}: what its xray/{name} is was lost, but for its angles {held}: "
                    "repair it with the same geometry and angles as it was ingested with"
                )


ROW_KEYS = ("case", "patient", "study", "series", "split")


def _attributes_left(store: Path) -> dict[str, Any]:
    try:
        return layout.group_attributes(store)
    except StoreError:
        return {}


def _visible_row(visible: Mapping[str, Any], yes: Sequence[Key]) -> Row:
    """A row whose case lost its file: its series is the source's that would be called the same."""
    case, patient = visible["id"], visible["patient"]
    own = (key for key in yes if key[0] == patient and case in (patient, case_id(key, alone=False)))
    _, study, series = next(own, (patient, "", ""))
    return Row(case, patient, study, series, visible["split"])
