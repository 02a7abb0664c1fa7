"""What mutants are made of: 20 slices of 24 × 24, in several transfer syntaxes and as volume files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

SLICES, SIDE = 20, 24
SPACING = (3.7, 1.3, 1.1)
FIRST_MM = -712.3
"""With the spacing chosen so that no single digit moves one slice to where another belongs."""
SERIES = ("explicit", "implicit", "signed", "rle", "jpeg-2000", "jpeg-lossless")
VOLUMES = ("nii", "nii.gz", "mha", "mhd", "nrrd", "nhdr")


def base_volume() -> np.ndarray:
    """(20, 24, 24) int16 HU; no two slices alike, no axis like its own mirror image."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in (SLICES, SIDE, SIDE)), indexing="ij")
    noise = np.random.default_rng(0).integers(-40, 40, z.shape)
    return (-1000 + 25 * z + 30 * y + 40 * x + noise).astype(np.int16)


def write_series(folder: Path, kind: str) -> list[Path]:
    """One of `SERIES`, a file a slice from the feet up, named so that nothing can be told from it."""
    hu = base_volume()
    order = np.random.default_rng(1).permutation(SLICES)
    files = []
    for index in range(SLICES):
        path = folder / f"{order[index]:03d}.dcm"
        write_slice(hu[index], index, kind).save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def write_slice(hu: np.ndarray, index: int, kind: str) -> FileDataset:
    """One slice as a data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.1.{index + 1}"
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if kind == "implicit" else ExplicitVRLittleEndian
    signed = kind == "signed"
    stored = (hu.astype(np.int32) + 1024).astype("<i2" if signed else "<u2")
    values = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.3.1.{index + 1}",
        "StudyDate": "20200229",
        "Modality": "CT",
        "Manufacturer": "SIEMENS",
        "PatientName": "A^B",
        "PatientID": "P-1",
        "SliceThickness": SPACING[0],
        "KVP": 120,
        "GantryDetectorTilt": 0,
        "ConvolutionKernel": "B30f",
        "StudyInstanceUID": "1.2.3.77",
        "SeriesInstanceUID": "1.2.3.1",
        "AcquisitionNumber": 1,
        "InstanceNumber": index + 1,
        "ImagePositionPatient": [-150.0, -130.0, round(FIRST_MM + SPACING[0] * index, 4)],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": SIDE,
        "Columns": SIDE,
        "PixelSpacing": list(SPACING[1:]),
        "BitsAllocated": 16,
        "BitsStored": 16 if signed else 12,
        "HighBit": 15 if signed else 11,
        "PixelRepresentation": int(signed),
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "PixelData": stored.tobytes(),
    }
    data = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data["PixelData"].VR = "OW"
    if signed:
        data.add_new("PixelPaddingValue", "SS", -2000)
    if kind == "rle":
        data.compress(RLELossless, generate_instance_uid=False)
    elif kind.startswith("jpeg"):
        _compress(data, stored, {"jpeg-2000": "JPEG2000", "jpeg-lossless": "JPEG"}[kind])
    return data


def _compress(data: FileDataset, stored: np.ndarray, compressor: str) -> None:
    """By GDCM, whose pixel data is then put into the data set."""
    image = sitk.GetImageFromArray(stored[None].astype(np.uint16))
    with TemporaryDirectory() as folder:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(f"{folder}/slice.dcm")
        writer.SetCompressor(compressor)
        writer.UseCompressionOn()
        writer.Execute(image)
        packed = pydicom.dcmread(f"{folder}/slice.dcm")
        frame = next(pydicom.encaps.generate_frames(packed.PixelData, number_of_frames=1))
    data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    data.BitsStored, data.HighBit = packed.BitsStored, packed.HighBit
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True


def write_volume(folder: Path, suffix: str) -> list[Path]:
    """The same volume as one file of `VOLUMES`, and what belongs to it."""
    image = sitk.GetImageFromArray(base_volume())
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-150.0, -130.0, FIRST_MM))
    path = folder / f"chest.{suffix}"
    sitk.WriteImage(image, str(path))
    return [path, *(other for other in sorted(folder.iterdir()) if other != path)]
