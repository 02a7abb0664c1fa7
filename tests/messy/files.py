"""CT series, pictures that are no slices, and radiographs as files, whatever is to be wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

Edit = Callable[[int, Dataset], None]
Place = Callable[[int], str]
"""From a slice's number to the path of its file below the series' folder."""


@dataclass(frozen=True)
class Series:
    """A CT series to be written; `hu` (z, y, x), feet to head."""

    patient: str
    study: str
    uid: str
    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    date: str = "20200110"
    thickness_mm: float | None = None
    """The spacing of the slices where None."""
    kernel: str = "B30f"
    contrast: bool = False
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    slope: float = 1.0
    intercept: float = -1024.0
    signed: bool = True
    padding: int | None = None
    rle: bool = False
    edit: Edit | None = None
    skip: frozenset[int] = field(default_factory=frozenset)
    """Slices that are not written."""


def numbered(number: int) -> str:
    """1-007.dcm, as TCIA names files, in another order than the slices'."""
    return f"1-{(number * 37) % 1009:03d}.dcm"


def write_series(folder: Path, series: Series, place: Place = numbered) -> list[Path]:
    """One file a slice, from the head down."""
    header = _header(series)
    files = []
    count = len(series.hu)
    for number in range(count):
        if number in series.skip:
            continue
        index = count - 1 - number
        header.InstanceNumber = number + 1
        header.SOPInstanceUID = f"{series.uid}.{number + 1}"
        header.ImagePositionPatient = [-180.0, -150.0, round(-600.0 + index * series.spacing_mm[0], 4)]
        header.PixelData = _stored(series, series.hu[index])
        data = header
        if series.edit:
            data = Dataset()
            data.update(header)
            series.edit(number, data)
        path = folder / place(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(data, path, RLELossless if series.rle else ExplicitVRLittleEndian)
        files.append(path)
    return files


def _stored(series: Series, hu: np.ndarray) -> bytes:
    stored = np.rint((hu.astype(np.float32) - series.intercept) / series.slope)
    if series.padding is not None:
        y, x = (np.linspace(-1, 1, n) for n in hu.shape)
        stored[np.hypot(y[:, None], x[None]) > 1.0] = series.padding
    return stored.astype("<i2" if series.signed else "<u2").tobytes()


def _header(series: Series) -> Dataset:
    dz, dy, dx = series.spacing_mm
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": list(series.image_type),
        "SOPClassUID": CTImageStorage,
        "StudyDate": series.date,
        "SeriesDate": series.date,
        "AcquisitionDate": series.date,
        "ContentDate": series.date,
        "Modality": "CT",
        "Manufacturer": "SIEMENS",
        "PatientName": "Synthetic^Chest",
        "PatientID": series.patient,
        "PatientIdentityRemoved": "YES",
        "BodyPartExamined": "CHEST",
        "SliceThickness": f"{series.thickness_mm or dz:g}",
        "KVP": "120",
        "ConvolutionKernel": series.kernel,
        "GantryDetectorTilt": "0",
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [f"{dy:.6f}", f"{dx:.6f}"],
        "StudyInstanceUID": series.study,
        "SeriesInstanceUID": series.uid,
        "FrameOfReferenceUID": f"{series.study}.9",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": series.hu.shape[1],
        "Columns": series.hu.shape[2],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(series.signed),
        "RescaleSlope": f"{series.slope:g}",
        "RescaleIntercept": f"{series.intercept:g}",
        "RescaleType": "HU",
    }
    if series.contrast:
        values["ContrastBolusAgent"] = "IOHEXOL"
    header = _dataset(values)
    if series.padding is not None:
        header.add_new("PixelPaddingValue", "SS" if series.signed else "US", series.padding)
    return header


def _dataset(values: dict[str, Any]) -> Dataset:
    data = Dataset()
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data


def _save(data: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = syntax
    data["PixelData"].VR = "OW"
    if syntax == RLELossless:
        data = deepcopy(data)
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_picture(path: Path, series: Series, kind: str) -> None:
    """One picture that is no slice: a localizer, a dose page, a screen save or a secondary capture."""
    picture = (series.hu.astype(np.float32) + 1000).clip(0).mean(1)[::-1]
    data = _header(replace(series, hu=picture[None].astype(np.int16)))
    data.SOPInstanceUID, data.InstanceNumber = f"{series.uid}.1", 1
    data.ImagePositionPatient = [-180.0, 0.0, 0.0]
    data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    data.PixelData = picture.astype("<i2").tobytes()
    if kind == "localizer":
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    elif kind == "dose page":
        data.ImageType = ["DERIVED", "SECONDARY", "DOSE_INFO"]
    elif kind == "screen save":
        data.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        del data.ImagePositionPatient
    else:
        data.SOPClassUID = SecondaryCaptureImageStorage
    _save(data, path)


def write_radiograph(
    path: Path,
    series: Series,
    *,
    modality: str = "DX",
    photometric: str = "MONOCHROME2",
    part: str = "CHEST",
    text: Sequence[str] = (),
    side: int = 640,
) -> np.ndarray:
    """A frontal picture by parallel rays; returns the stored values."""
    mu = 0.02 * np.maximum(1 + series.hu[::-1].astype(np.float32) / 1000, 0)
    integrals = mu.sum(1) * series.spacing_mm[1]
    picture = np.asarray(Image.fromarray(integrals).resize((side, side), Image.Resampling.BICUBIC))
    shown = np.clip(picture / picture.max(), 0, 1) * 3000
    if text:
        drawing = Image.new("L", (side, side))
        draw = ImageDraw.Draw(drawing)
        font = ImageFont.load_default(22)
        for number, line in enumerate(text):
            draw.text((14, 14 + 30 * number), line, fill=255, font=font)
        shown = np.where(np.asarray(drawing) > 127, 4095, shown)
    stored = np.rint(4095 - shown if photometric == "MONOCHROME1" else shown).astype("<u2")
    data = _dataset(
        {
            "SOPClassUID": DigitalXRayImageStorageForPresentation
            if modality == "DX"
            else ComputedRadiographyImageStorage,
            "SOPInstanceUID": f"{series.uid}.1",
            "ImageType": ["ORIGINAL", "PRIMARY"],
            "Modality": modality,
            "PresentationIntentType": "FOR PRESENTATION",
            "PatientID": series.patient,
            "StudyInstanceUID": series.study,
            "SeriesInstanceUID": series.uid,
            "StudyDate": series.date,
            "AcquisitionDate": series.date,
            "BodyPartExamined": part,
            "ViewPosition": "PA",
            "ImagerPixelSpacing": ["0.6", "0.6"],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": photometric,
            "Rows": side,
            "Columns": side,
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "WindowCenter": "2048",
            "WindowWidth": "4096",
            "PixelData": stored.tobytes(),
        }
    )
    _save(data, path)
    return stored


def write_dicomdir(path: Path) -> None:
    """The directory of a burnt disc, which lists nothing."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    data.file_meta.MediaStorageSOPInstanceUID = "2.25.7"
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.FileSetID = "DISC"
    data.save_as(path, enforce_file_format=True)


def cut(path: Path, keep: float) -> None:
    """Truncate a file to a part of its length."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def damage(path: Path) -> None:
    """Spoil the compressed pixels of a file, whose length and items stay."""
    data = path.read_bytes()
    start = data.rindex(b"\xfe\xff\x00\xe0") + 8  # after the head of the one fragment
    path.write_bytes(data[:start] + b"\xff" * 64 + data[start + 64 :])


def without(keywords: Iterable[str]) -> Edit:
    """Slices that lack elements."""
    names = list(keywords)

    def edit(_: int, data: Dataset) -> None:
        for name in names:
            if name in data:
                del data[name]

    return edit
