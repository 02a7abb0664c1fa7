"""Nobody on both sides: a patient or a scan that is learnt from, or chosen by, must not be tested on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from xr2ct.errors import UserError
from xr2ct.store.layout import ct_array, exclude_file
from xr2ct.store.read import Case, Store

LEARNT = ("train", "val")


def check_apart(train: Store, others: Sequence[Store] = ()) -> None:
    """`UserError` where someone of `train`'s training or validation split is tested on, there or in `others`.

    The same patient is one of the same name; the same scan, one with the same series or with the same volume
    to the bit, whatever the patient is called. In `train` itself nobody may be in two splits at all. Reads no
    volume: names and checksums alone. Excluded cases are in no store that is opened.
    """
    splits = {split: train.split(split) for split in (*LEARNT, "test")}
    pairs = [("train", "val"), ("train", "test"), ("val", "test")]
    shared = [(found, a, train, b) for a, b in pairs for found in _shared(train, splits[a], train, splits[b])]
    for other in others:
        if other.path == train.path:
            continue
        for split in LEARNT:
            found_there = _shared(train, splits[split], other, other.split("test"))
            shared += [(found, split, other, "test") for found in found_there]
    if shared:
        (why, here, there), split, store, tested = shared[0]
        more = f" ({len(shared)} such cases in all)" if len(shared) > 1 else ""
        raise UserError(
            f"{why}: case {here.id} in the {split} split of {train.cohort} ({train.path}) and "
            f"case {there.id} in the {tested} split of {store.cohort} ({store.path}){more}\n"
            "ingest one of the two again with a list of splits that has them on one side, or name "
            f"{there.id} in {exclude_file(store.path)}"
        )


def _shared(
    a: Store, mine: Sequence[Case], b: Store, theirs: Sequence[Case]
) -> Iterator[tuple[str, Case, Case]]:
    """Pairs of cases that are one person, and by what they were known: one pair for each of `theirs`."""
    traits = [("patient", {c.patient: c for c in mine}), ("series", _by_series(a, mine))]
    volumes = [ct_array(size) for size in sorted({*a.sizes} & {*b.sizes})[:1]]
    traits += [("volume", {c.attributes["checksums"][array]: c for c in mine}) for array in volumes]
    series = {case.id: key for key, case in _by_series(b, theirs).items()}
    for case in theirs:
        keys = [
            case.patient,
            series.get(case.id),
            *(case.attributes["checksums"][array] for array in volumes),
        ]
        for (name, known), key in zip(traits, keys, strict=True):
            if key in known:
                yield f"the same {name}", known[key], case
                break


def _by_series(store: Store, cases: Sequence[Case]) -> Mapping[str, Case]:
    """Cases by their series, where it is one patient's: a file's name (`ct.nii.gz`) may be everybody's."""
    patients: dict[str, set[str]] = defaultdict(set)
    for case in store.cases:
        patients[case.attributes.get("series", "")].add(case.patient)
    own = {series for series, names in patients.items() if series and len(names) == 1}
    return {case.attributes["series"]: case for case in cases if case.attributes.get("series") in own}
