"""A collection from the Imaging Data Commons: what it is and weighs first, then its series, each whole.

    selection = select("lctsc")
    print(selection)
    download(selection, Path("tcia/LCTSC"))

A series is downloaded beside its place and moved there once every file of it has come, so a series' folder in
DIR is a whole series, and what is there is never fetched twice.
"""

from __future__ import annotations

import logging
import shutil
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from xr2ct.cohorts.catalogue import Cohort, catalogue, cohort
from xr2ct.errors import UserError, WorkFailed, nearest
from xr2ct.locks import alone

if TYPE_CHECKING:
    from idc_index import IDCClient

log = logging.getLogger(__name__)

MODALITIES = ("CT", "DX", "CR")
"""CT, and the radiographs that came along."""

LAYOUT = "%PatientID/%StudyInstanceUID/%Modality_%SeriesInstanceUID"
"""Folders of DIR, in the words of idc-index."""

BATCH_BYTES = 2_000_000_000
"""Series downloaded at once: enough to keep a fast line busy, little to lose when killed."""

STAGING = ".fetching"
"""Folder in DIR for series on their way; a reader passes over folders with a dot."""

PATIENCE_S = 15
"""How long the server may take to answer at all."""


@dataclass(frozen=True)
class Series:
    """One series of a collection."""

    patient: str
    study: str
    uid: str
    modality: str
    files: int
    size: int
    """Bytes, by the index."""

    @property
    def folder(self) -> Path:
        """Where it comes to lie in DIR; see `LAYOUT`."""
        return Path(self.patient, self.study, f"{self.modality}_{self.uid}")


@dataclass(frozen=True)
class Selection:
    """What of a cohort is to be fetched."""

    name: str
    cohort: Cohort
    release: str
    """Of the Imaging Data Commons, as ``v25``."""
    licenses: tuple[str, ...]
    """As the index has them for these series."""
    series: tuple[Series, ...] = field(repr=False)
    """In the order of patients."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(s.size for s in self.series)

    @property
    def patients(self) -> set[str]:
        return {s.patient for s in self.series}

    def __str__(self) -> str:
        """Size, licence and citation: what is to be read before a download."""
        counts = {
            m: sum(s.modality == m for s in self.series) for m in sorted({s.modality for s in self.series})
        }
        told = ", ".join(f"{count} {modality}" for modality, count in counts.items())
        lines = [
            f"{self.name}: {self.cohort.collection}, Imaging Data Commons {self.release}",
            f"size      {readable(self.size)}: {told} series of {len(self.patients)} patients",
            f"licence   {', '.join(self.licenses)}",
            f"doi       https://doi.org/{self.cohort.doi}",
            f"cite      {self.cohort.citation}",
        ]
        if self.cohort.non_commercial:
            lines.insert(3, "          NC: no commercial use of the images, nor of what is derived from them")
        return "\n".join(lines)


def select(name: str, modalities: Sequence[str] = MODALITIES, patients: Sequence[str] = ()) -> Selection:
    """What `download` would fetch: series of these modalities in the collection's own part of the index.

    Analysis results that others published on top of a collection have a DOI and a licence of their own and
    are left out, and so are radiographs of patients without a CT. `patients` are PatientIDs, all where empty.
    Needs no network. Raises `UserError` for a cohort that is not there and for patients or modalities that
    it has not.
    """
    about = cohort(name)
    if not about.idc:
        there = [n for n, c in catalogue().items() if c.idc]
        raise UserError(f"{name}: not at the Imaging Data Commons; those that are: {', '.join(there)}")
    index = _client().index
    own = index[(index.collection_id == about.idc) & (index.source_DOI.str.lower() == about.doi.lower())]
    if own.empty:
        raise UserError(
            f"{name}: the index of idc-index has no collection {about.idc!r} with DOI {about.doi}; "
            "another version of idc-index may"
        )
    for modality in modalities:  # the usual ones may be asked for of any cohort
        if modality not in {*own.Modality, *MODALITIES}:
            raise UserError(f"{name}: no modality {modality!r}: {nearest(modality, set(own.Modality))}")
    for patient in patients:
        if patient not in set(own.PatientID):
            raise UserError(f"{name}: no patient {patient!r}: {nearest(patient, set(own.PatientID))}")
    with_ct = set(own.PatientID[own.Modality == "CT"])
    chosen = own[own.Modality.isin(modalities) & own.PatientID.isin(with_ct & set(patients or with_ct))]
    chosen = chosen.sort_values(["PatientID", "StudyInstanceUID", "SeriesInstanceUID"])
    columns = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "instanceCount"]
    rows = zip(*(chosen[column] for column in columns), chosen.series_size_MB, strict=True)
    series = tuple(Series(p, t, u, m, int(files), round(mb * 1e6)) for p, t, u, m, files, mb in rows)
    if not series:
        raise UserError(f"{name}: no series of {', '.join(modalities)} of {', '.join(patients)}")
    return Selection(
        name, about, _client().idc_version, tuple(sorted(set(chosen.license_short_name))), series
    )


def download(selection: Selection, to: Path) -> int:
    """Bring `to` level with a selection; the number of series that came now.

    Stopped at any moment, the same call continues. Raises `WorkFailed` without a network, naming the DOI,
    where the disk is too small, where another fetch is writing there, and where series did not come whole.
    """
    to = Path(to)
    if to.exists() and not to.is_dir():
        raise UserError(f"{to}: a file; expected a folder for the collection")
    missing = [s for s in selection.series if not (to / s.folder).is_dir()]
    log.info("%s: %d of %d series are there", to, len(selection.series) - len(missing), len(selection.series))
    if not missing:
        return 0
    _check_space(to, sum(s.size for s in missing))
    _check_network(selection)
    try:
        with alone(to / ".fetch.lock"):
            failed = _download(selection, missing, to)
    except TimeoutError:
        raise WorkFailed(f"{to}: another fetch is writing there") from None
    if failed:
        (series, reason), *_ = failed.items()
        raise WorkFailed(
            f"{to}: {len(failed)} of {len(missing)} series did not come whole, the first of them of "
            f"{series.patient}: {reason}; the same command tries them again"
        )
    return len(missing)


def readable(size: int) -> str:
    """Bytes as people say them."""
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= u or n == "kB")
    return f"{size / unit:.1f} {name}"


@cache
def _client() -> IDCClient:
    """idc-index with its index of all collections, which it carries along."""
    try:
        from idc_index import IDCClient
    except ImportError:
        raise UserError("fetching needs idc-index: pip install 'xr2ct[fetch]'") from None
    return IDCClient()


def _download(selection: Selection, missing: Sequence[Series], to: Path) -> dict[Series, str]:
    """Batch by batch; what did not come whole, and why."""
    staging = to / STAGING
    shutil.rmtree(staging, ignore_errors=True)  # of a fetch that was killed
    failed: dict[Series, str] = {}
    total = sum(s.size for s in missing)
    with tqdm(total=total, unit="B", unit_scale=True, desc=selection.name, disable=None) as bar:
        for batch in _batches(missing):
            # A name of its own: the s5cmd of a killed fetch may live on for a while and write into the other.
            place = staging / uuid.uuid4().hex
            place.mkdir(parents=True)
            told = _run_idc_index(batch, place)
            for series in batch:
                problem = _problem(series, place / series.folder)
                if problem:
                    failed[series] = told or problem
                else:
                    (to / series.folder).parent.mkdir(parents=True, exist_ok=True)
                    (place / series.folder).rename(to / series.folder)
                bar.update(series.size)
            shutil.rmtree(place)
            if all(series in failed for series in batch):
                break  # nothing of a whole batch: the line is gone, and each further one would wait for it
    shutil.rmtree(staging, ignore_errors=True)
    return failed


def _batches(series: Sequence[Series]) -> Iterator[list[Series]]:
    """Runs of series of about `BATCH_BYTES`."""
    batch: list[Series] = []
    for one in series:
        batch.append(one)
        if sum(s.size for s in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _run_idc_index(batch: Sequence[Series], place: Path) -> str:
    """Download series under `place`; what idc-index had to complain of, in one line."""
    complaints = _Complaints()
    theirs = logging.getLogger("idc_index")
    theirs.addHandler(complaints)
    propagates, theirs.propagate = theirs.propagate, False
    try:
        _client().download_from_selection(
            downloadDir=str(place),
            seriesInstanceUID=[series.uid for series in batch],
            dirTemplate=LAYOUT,
            quiet=True,
            show_progress_bar=False,
        )
    finally:
        theirs.removeHandler(complaints)
        theirs.propagate = propagates
    return complaints.first


class _Complaints(logging.Handler):
    """idc-index raises nothing when a download fails: it logs s5cmd's errors."""

    first = ""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        lines = [line for line in record.getMessage().splitlines() if line.startswith("ERROR")]
        self.first = self.first or " ".join(lines[:1])


def _problem(series: Series, folder: Path) -> str:
    """What a downloaded series lacks; empty where it is whole. (s5cmd removes a file that breaks off.)"""
    sizes = [file.stat().st_size for file in folder.iterdir()] if folder.is_dir() else []
    if len(sizes) != series.files:
        return f"{len(sizes)} files of {series.files}"
    if sum(sizes) < 0.99 * series.size:
        return f"{readable(sum(sizes))} of {readable(series.size)}"
    return ""


def _check_space(to: Path, size: int) -> None:
    there = next(place for place in (to, *to.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise WorkFailed(f"{to}: {readable(size)} are to come and {readable(free)} are free")


def _check_network(selection: Selection) -> None:
    """`WorkFailed` in one line, at once: s5cmd alone would try for minutes, and idc-index would not say."""
    import idc_index.index

    address = idc_index.index.aws_endpoint_url
    try:
        urllib.request.urlopen(address, timeout=PATIENCE_S).close()
    except urllib.error.HTTPError:
        return  # an answer, if not to this question
    except OSError as error:
        reason: Any = getattr(error, "reason", error)
        raise WorkFailed(
            f"{selection.name}: {address} cannot be reached ({getattr(reason, 'strerror', None) or reason}); "
            f"the collection is also at https://doi.org/{selection.cohort.doi}"
        ) from None
