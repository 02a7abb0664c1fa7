"""Lung coverages of the series of a scan: computed once, in parallel, kept in its index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from xr2ct.cohorts.facts import Facts
from xr2ct.cohorts.processes import cores, spread
from xr2ct.cohorts.refused import Refusal, Refused
from xr2ct.cohorts.scan_index import Coverage, ScanIndex
from xr2ct.cohorts.series import Source

FEW = 4
"""Up to so many series processes cost more than they save."""


def measure(index: ScanIndex, sources: Sequence[Source], workers: int | None = None) -> None:
    """Put the lung coverage of each source into the index, where it is not there yet."""
    new = [source for source in sources if index.coverage(source.digest) is None]
    count = 1 if len(new) <= FEW else min(workers or cores(), len(new))
    results = ((s, look(s)) for s in new) if count == 1 else spread(look, new, count)
    for source, found in tqdm(results, "lung coverage", len(new), unit="series", disable=None):
        index.put_coverage(source.digest, found or Coverage(None, "the reader crashed on it"))


def known(index: ScanIndex, source: Source) -> Source:
    """The source with what the index knows of its lungs."""
    found = index.coverage(source.digest)
    if found is None:
        return source
    if found.value is None:
        return replace(source, flaw=Refusal(source.patient, source.series, found.reason, found.where))
    return replace(source, facts=replace(source.facts or Facts(), lung_coverage=found.value))


def look(source: Source) -> Coverage:
    """A scan's lung coverage. Runs in a worker."""
    from xr2ct.cohorts.coverage import lung_coverage  # here and below: the parent decodes no pixels
    from xr2ct.cohorts.reader import read_volume

    value = lung_coverage(source)
    if value is not None:
        return Coverage(value)
    try:
        read_volume(source)  # whole, for the reason: few series come here
    except Refused as refused:
        return Coverage(None, refused.reason, refused.where)
    return Coverage(None, "no lungs found")
