"""Small real volumes: a box of tissue with two lungs, as MHA files and DICOM series; radiographs beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
)

from xr2ct.projection.geometry import Geometry

SMALL = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)
CUBE_MM = 160.0
"""Smaller than the body, so that a case takes a tenth of a second."""


def chest(seed: int) -> np.ndarray:
    """(z, y, x) int16 HU: no two seeds alike."""
    random = np.random.default_rng(seed)
    z, y, x = np.mgrid[:44, :40, :52].astype(float)
    hu = np.full(z.shape, -1000.0)
    hu[:, 6:34, 5:47] = random.uniform(0, 60)
    for side in (16, 36):
        axes = random.uniform(0.9, 1.1, 3) * (15, 9, 7)
        hu[((z - 22) / axes[0]) ** 2 + ((y - 20) / axes[1]) ** 2 + ((x - side) / axes[2]) ** 2 < 1] = -850
    return np.rint(hu + random.normal(0, 10, hu.shape)).astype(np.int16)


def write_mha(path: Path, hu: np.ndarray, spacing: tuple[float, float, float] = (6.0, 6.0, 3.0)) -> None:
    """A file of voxels of 3 mm along z and 6 mm across, or of another spacing (x, y, z)."""
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_dicom(folder: Path, hu: np.ndarray, patient: str, series: str, **elements: object) -> list[Path]:
    """A CT series, one file a slice, of the same voxels; `elements` are set by keyword in every slice."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, plane in enumerate(hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{index + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        values: dict[str, object] = {
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": f"{series}.{index + 1}",
            "Modality": "CT",
            "PatientID": patient,
            "StudyInstanceUID": f"{series}.0",
            "SeriesInstanceUID": series,
            "StudyDate": "20200229",
            "SliceThickness": 3,
            "ImagePositionPatient": [-150.0, -130.0, 3.0 * index],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [6, 6],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": plane.shape[0],
            "Columns": plane.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "PixelData": plane.astype("<i2").tobytes(),
            **elements,
        }
        for keyword, value in values.items():
            setattr(data, keyword, value)
        path = folder / f"{index:03d}.dcm"
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def write_radiograph(path: Path, seed: int, patient: str, series: str, **elements: object) -> None:
    """A DX picture of 400×320 without a letter on it; `elements` are set by keyword."""
    y, x = np.mgrid[:400, :320] / 400
    random = np.random.default_rng(seed)
    chest = 900 - 500 * np.exp(-(((np.abs(x - 0.4) - 0.18) / 0.1) ** 2 + ((y - 0.45) / 0.25) ** 2))
    pixels = np.rint(chest + random.normal(0, 8, chest.shape)).astype("<u2")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = f"{series}.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, object] = {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": f"{series}.1",
        "Modality": "DX",
        "PatientID": patient,
        "StudyInstanceUID": f"{series}.0",
        "SeriesInstanceUID": series,
        "StudyDate": "20200304",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "ImagerPixelSpacing": [1.0, 1.0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 400,
        "Columns": 320,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
        **elements,
    }
    for keyword, value in values.items():
        setattr(data, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def spoil(file: Path) -> None:
    """Make rubbish of a slice's pixels, which no header tells: compressed, its stream is no stream."""
    data = pydicom.dcmread(file)
    data.compress(RLELossless, generate_instance_uid=False)
    data.PixelData = encapsulate([b"\xff" * 512])
    data.save_as(file)
