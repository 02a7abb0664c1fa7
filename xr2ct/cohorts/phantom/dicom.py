"""Synthetic chests as DICOM series: genuine CT Image Storage, marked synthetic, the same bytes every time.

One folder a patient, ``PATIENT/STUDY/SERIES/*.dcm``. File names say nothing about the slices' order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from xr2ct.cohorts.phantom.grid import Array
from xr2ct.cohorts.phantom.scanner import MANUFACTURER, WATER_PER_MM, Scan, scan
from xr2ct.cohorts.phantom.shifts import SHIFTS, shift_of
from xr2ct.cohorts.volume import AIR_HU
from xr2ct.errors import UserError
from xr2ct.seeds import derive_seed, generator

log = logging.getLogger(__name__)

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
}


def write_cohort(
    folder: Path, cohort: str, patients: int, seed: int, start: int = 1, workers: int = 1
) -> list[Path]:
    """Write patients `start` … `start + patients − 1` of a cohort; returns one series folder a patient.

    Patient number n of a seed is the same whatever else is written and however many `workers` there are.
    Raises `UserError` for an unknown cohort, no patients, or a folder that is a file.
    """
    shift_of(cohort)
    if patients < 1 or start < 1:
        raise UserError(f"patients and the first patient's number start at 1, got {patients} and {start}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: expected a folder to write {cohort} into, it is a file")
    write = partial(write_patient, folder, cohort, seed)
    numbers = range(start, start + patients)
    if min(workers, patients) == 1:
        return list(_logged(cohort, patients, map(write, numbers)))
    with ProcessPoolExecutor(min(workers, patients), mp_context=get_context("spawn")) as pool:
        return list(_logged(cohort, patients, pool.map(write, numbers)))


def _logged(cohort: str, patients: int, folders: Iterator[Path]) -> Iterator[Path]:
    for done, written in enumerate(folders, 1):
        log.info("%s: %d/%d %s", cohort, done, patients, written)
        yield written


def patient_id(cohort: str, number: int) -> str:
    """SYN-LIDC-0001: told from a real patient at sight, and distinct between cohorts."""
    return f"SYN-{SHIFTS[cohort].prefix}-{number:04d}"


def patient_seed(seed: int, cohort: str, number: int) -> int:
    """The seed of `synthetic_chest` that draws the same patient."""
    return derive_seed(seed, "patient", cohort, number)


def write_patient(folder: Path, cohort: str, seed: int, number: int) -> Path:
    """One patient's series; returns its folder."""
    own_seed = patient_seed(seed, cohort, number)
    taken = scan(own_seed, cohort)
    name = patient_id(cohort, number)
    uid = partial(_uid, own_seed, name)
    series = folder / name / f"study-{uid('study')[-8:]}" / f"series-{uid('series')[-8:]}"
    series.mkdir(parents=True, exist_ok=True)
    header = _header(taken, cohort, name, uid("study"), uid("series"), uid("frame"))
    order = generator(own_seed, "file names").permutation(len(taken.hu))
    syntax = SYNTAXES[taken.shift.encoding.syntax]
    slices = _stored(taken)[::-1]  # head to feet, as most scanners count
    header = _encoded_once(header, slices[0], syntax)
    for instance, (place, stored) in enumerate(zip(order, slices, strict=True), 1):
        z = taken.origin_mm[2] + (len(taken.hu) - instance) * taken.grid.spacing_mm[0]
        header.InstanceNumber = instance
        header.SOPInstanceUID = uid("slice", instance)
        header.ImagePositionPatient = [_decimal(v) for v in (*taken.origin_mm[:2], z)]
        header.SliceLocation = _decimal(z)
        _write(series / f"1-{place + 1:03d}.dcm", header, stored, syntax)
    if taken.shift.encoding.localizer != "none":
        own = taken.shift.encoding.localizer == "own-series"
        _write_localizer(series / "1-000.dcm", header, taken, uid("scout"), uid("scouts") if own else None)
    return series


def _uid(seed: int, *names: str | int) -> str:
    return generate_uid(entropy_srcs=["xr2ct synthetic", str(seed), *map(str, names)])


def _decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value:.6f}"[:16]


def _stored(taken: Scan) -> Array:
    """(z, y, x) pixel values as in the files."""
    encoding = taken.shift.encoding
    stored = taken.hu - AIR_HU
    if encoding.padding is not None:
        stored[:, ~taken.seen] = encoding.padding
    return stored.astype(_pixel_type(taken))


def _pixel_type(taken: Scan) -> str:
    return "<i2" if taken.shift.encoding.signed else "<u2"


def _header(taken: Scan, cohort: str, name: str, study: str, series: str, frame: str) -> Dataset:
    """All that a patient's slices share."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20000101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "000000"
    ds.AccessionNumber = ""
    ds.Modality = "CT"
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = taken.shift.encoding.manufacturer_model
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = f"Synthetic chest in the manner of {cohort}"
    ds.SeriesDescription = f"{taken.kernel.name} {taken.grid.spacing_mm[0]:g} mm"
    ds.DerivationDescription = "Computed from a seed; no patient was examined"
    ds.PatientName = "Synthetic^Chest"
    ds.PatientID = name
    ds.PatientBirthDate = ""
    ds.PatientSex = "F" if taken.patient.female else "M"
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Synthetic: there is no patient"
    ds.BodyPartExamined = "CHEST"
    ds.ContentQualification = "RESEARCH"
    ds.ImageComments = "; ".join(["SYNTHETIC", *sorted(taken.patient.findings)])
    if taken.patient.contrast:
        ds.ContrastBolusAgent = "IV"
    _describe_scan(ds, taken)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.SOPInstanceUID = series
    ds.StudyID, ds.SeriesNumber = "1", 2
    ds.PositionReferenceIndicator = ""
    return ds


def _describe_scan(ds: Dataset, taken: Scan) -> None:
    encoding = taken.shift.encoding
    dz, dy, dx = taken.grid.spacing_mm
    ds.SliceThickness = _decimal(taken.thickness_mm)
    ds.SpacingBetweenSlices = _decimal(dz)
    ds.KVP = str(taken.shift.kvp)
    ds.DataCollectionDiameter = "500"
    ds.ReconstructionDiameter = _decimal(dx * taken.hu.shape[2])
    ds.GantryDetectorTilt = "0"
    ds.ConvolutionKernel = taken.kernel.name
    ds.PatientPosition = "HFS"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = taken.hu.shape[1:]
    ds.PixelSpacing = [_decimal(dy), _decimal(dx)]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = int(encoding.signed)
    if encoding.padding is not None:
        ds.add_new("PixelPaddingValue", "SS" if encoding.signed else "US", encoding.padding)
    ds.WindowCenter, ds.WindowWidth = "-500", "1500"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(AIR_HU), "1", "HU"


def _write(path: Path | BytesIO, header: Dataset, stored: Array, syntax: UID) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    header.file_meta = meta
    if syntax == RLELossless:
        header.add(DataElement("PixelData", "OB", encapsulate([_rle(stored)]), is_undefined_length=True))
    else:
        header.add(DataElement("PixelData", "OW", stored.tobytes()))
    header.save_as(path, enforce_file_format=True)


def _encoded_once(header: Dataset, stored: Array, syntax: UID) -> Dataset:
    """The header as read back: pydicom copies what was read, and encodes only what is set anew."""
    buffer = BytesIO()
    _write(buffer, header, stored, syntax)
    return dcmread(BytesIO(buffer.getvalue()))


def _rle(stored: Array) -> bytes:
    """A (rows, columns) 16-bit picture in DICOM's RLE (PS3.5 annex G): high bytes in runs, low ones plain.

    pydicom's own encoder takes longer than drawing the chest.
    """
    rows, columns = stored.shape
    planes = stored.view(np.uint8).reshape(rows, columns, 2)
    high, low = planes[..., 1].ravel(), planes[..., 0]
    place = np.arange(high.size)
    begins = np.concatenate([[True], high[1:] != high[:-1]]) | (place % columns == 0)
    since = place - np.maximum.accumulate(np.where(begins, place, 0))
    start = np.flatnonzero(since % 128 == 0)  # a run holds 128 at most, and never crosses a row
    length = np.diff(np.append(start, high.size))
    runs = np.stack([(257 - length) % 256, high[start]], 1).astype(np.uint8)
    pieces = [low[:, c : c + 128] for c in range(0, columns, 128)]
    literal = np.concatenate([np.insert(piece, 0, piece.shape[1] - 1, axis=1) for piece in pieces], axis=1)
    segments = [part.tobytes() + b"\0" * (part.size % 2) for part in (runs, literal)]
    offsets = [64, 64 + len(segments[0])]
    return np.array([2, *offsets, *[0] * 13], "<u4").tobytes() + b"".join(segments)


def _write_localizer(path: Path, header: Dataset, taken: Scan, uid: str, series: str | None) -> None:
    """The scout that the slices were planned on: a frontal picture by parallel rays, not a slice."""
    mu = WATER_PER_MM * np.maximum(1 + taken.hu.astype(np.float32) / 1000, 0)
    picture = (mu.sum(1)[::-1] * taken.grid.spacing_mm[1] * 100).astype(_pixel_type(taken))
    header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    header.SOPInstanceUID, header.InstanceNumber = uid, 0 if series is None else 1
    header.SeriesNumber = 2 if series is None else 1
    header.SeriesInstanceUID = series or header.SeriesInstanceUID
    dz, _, dx = taken.grid.spacing_mm
    x, _, z = taken.origin_mm
    header.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    header.ImagePositionPatient = [_decimal(v) for v in (x, 0, z + dz * (len(taken.hu) - 1))]
    header.PixelSpacing = [_decimal(dz), _decimal(dx)]
    header.Rows, header.Columns = picture.shape
    header.SeriesDescription = "Scout"
    for absent in ("SliceThickness", "SpacingBetweenSlices", "SliceLocation", "ConvolutionKernel"):
        delattr(header, absent)
    _write(path, header, picture, ExplicitVRLittleEndian)
