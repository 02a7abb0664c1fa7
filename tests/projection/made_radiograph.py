"""Radiographs of a synthetic chest as machines would hand them over, beside their line integrals."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from synthetic_store import CUBE_MM, FINE, chest

from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project

TAKEN = Geometry("chest-1800", sad_mm=1600.0, sid_mm=1800.0, detector_mm=430.0, pixels=320)
"""The machine."""
TRAINED = Geometry("chest-1800", sad_mm=1600.0, sid_mm=1800.0, detector_mm=430.0, pixels=64)
"""What a checkpoint knows of it."""
BITS = 12
FULL = (1 << BITS) - 1


@cache
def line_integrals(angle_deg: float, geometry: Geometry = TAKEN) -> np.ndarray:
    """(row, col) float64 of the chest, rows and columns as the geometry has them."""
    mu = attenuation(chest(1, "lidc-idri"))[None]
    return project(mu, (CUBE_MM / FINE,) * 3, geometry, [angle_deg])[0, 0].double().numpy()


def shown(view: np.ndarray, angle_deg: float) -> np.ndarray:
    """As a reader sees it: the patient's right, or front, at the left."""
    return view[:, ::-1] if angle_deg in (180.0, 270.0) else view


def logarithmic(view: np.ndarray) -> np.ndarray:
    """Stored values that grow with the line integral, 0 to 12 bits."""
    return np.round(view / view.max() * (FULL - 400) + 200).astype(np.uint16)


def linear(view: np.ndarray) -> np.ndarray:
    """Stored values in proportion to the exposure, in 16 bits."""
    return np.round(60000 * np.exp(-view)).astype(np.uint16)


def header(pixels: np.ndarray, geometry: Geometry = TAKEN, **values: Any) -> Dataset:
    """A DX picture FOR PRESENTATION that shows large values bright, with what is in `values` instead."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    wide = int(pixels.max()) > FULL
    told = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "1.2.3.9.1",
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [geometry.pixel_mm] * 2,
        "DistanceSourceToDetector": geometry.sid_mm,
        "DistanceSourceToPatient": geometry.sad_mm,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16 if wide else BITS,
        "HighBit": 15 if wide else BITS - 1,
        "PixelRepresentation": 0,
        "PixelData": np.ascontiguousarray(pixels).astype("<u2").tobytes(),
    } | values
    for keyword, value in told.items():
        if value is not None:
            setattr(data, keyword, value)
    data["PixelData"].VR = "OW"
    return data


def compress(data: Dataset, syntax: str) -> Dataset:
    """In place, by an encoder of pydicom or pillow."""
    if syntax == RLELossless:
        data.compress(syntax, generate_instance_uid=False)
    elif syntax == JPEG2000Lossless:
        out = io.BytesIO()
        pixels = np.frombuffer(data.PixelData, "<u2").reshape(data.Rows, data.Columns)
        Image.fromarray(pixels).save(out, "JPEG2000", irreversible=False)
        data.PixelData = encapsulate([out.getvalue()])
        data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    return data


def write(path: Path, pixels: np.ndarray, **values: Any) -> Path:
    header(pixels, **values).save_as(path, enforce_file_format=True)
    return path


def agreement(view: np.ndarray, seen: np.ndarray, angle_deg: float) -> float:
    """Correlation with the true line integrals within what is seen."""
    truth = line_integrals(angle_deg, TRAINED)
    return float(np.corrcoef(view[seen], truth[seen])[0, 1])
