"""A small chest and its writer as a DICOM series, with whatever fault a test plants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from xr2ct.cohorts.volume import NativeVolume

SPACING = (10.0, 6.0, 5.0)

Edit = Callable[[int, FileDataset], None]


@pytest.fixture(scope="session")
def chest() -> NativeVolume:
    """(24, 50, 64), every axis told apart: heart to the left, spine behind, narrow apices, a table."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in (24, 50, 64)), indexing="ij")
    mm_x, mm_y, mm_z = (x - 31.5) * 5.0, (y - 22) * 6.0, z * 10.0
    hu = np.full(z.shape, -1000, np.int16)
    hu[(mm_x / 145) ** 2 + (mm_y / 105) ** 2 < 1] = 40
    narrowing = np.sqrt(np.clip(1 - ((mm_z - 60) / 150) ** 2, 0, 1))
    for side in (-1, 1):
        lung = ((mm_x - side * 65) / 50) ** 2 + (mm_y / 75) ** 2 < narrowing**2
        hu[lung & (mm_z >= 40)] = -860
    hu[((mm_x - 40) / 42) ** 2 + ((mm_y + 25) / 38) ** 2 + ((mm_z - 90) / 50) ** 2 < 1] = 60
    hu[mm_x**2 + (mm_y - 80) ** 2 < 17**2] = 500
    hu[(mm_y > 132) & (mm_y < 143) & (np.abs(mm_x) < 130)] = -150
    return NativeVolume(hu, SPACING, {})


@pytest.fixture
def write_series() -> Callable[..., list[Path]]:
    """`write(folder, volume, ...)` → the files, in the order of their slices from the feet up."""
    return _write_series


def _write_series(
    folder: Path,
    volume: NativeVolume,
    *,
    patient: str = "P-1",
    series: str = "1.2.3.1",
    edit: Edit | None = None,
    names: Sequence[str] | None = None,
    bare: bool = False,
    rle: bool = False,
) -> list[Path]:
    """One file a slice; `edit(index, dataset)` plants faults; `bare` is implicit VR without preamble."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(volume.hu.shape[0]):
        data = _slice(volume, index, patient, series)
        if edit:
            edit(index, data)
        path = folder / (names[index] if names else f"{index:03d}.dcm")
        if rle:
            data.compress(RLELossless, generate_instance_uid=False)
        if bare:
            plain = Dataset()
            plain.update(data)
            plain.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        else:
            data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _slice(volume: NativeVolume, index: int, patient: str, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{index + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    z, y, x = volume.spacing_mm
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{series}.{index + 1}",
        "Modality": "CT",
        "PatientName": "Planted^Name",
        "PatientID": patient,
        "PatientBirthDate": "19501231",
        "StudyDate": "20200229",
        "AccessionNumber": "ACC-4711",
        "StudyInstanceUID": f"{series}.77",
        "SeriesInstanceUID": series,
        "InstanceNumber": index + 1,
        "SliceThickness": z,
        "ConvolutionKernel": "B30f",
        "ContrastBolusAgent": "IOHEXOL",
        "Manufacturer": "SCANNERS",
        "ImagePositionPatient": [-150.0, -130.0, -700.0 + z * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [y, x],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": volume.hu.shape[1],
        "Columns": volume.hu.shape[2],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": (volume.hu[index].astype(np.int32) + 1024).astype("<i2").tobytes(),
    }
    data = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data
