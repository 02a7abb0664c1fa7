"""From the values that a radiograph's file holds to something that grows in proportion to the line integral.

What is right depends on where in the chain of DICOM PS3.3 C.11 a value stands: stored value → modality LUT or
rescale → VOI window or LUT → presentation. The VOI step is a tone curve for the eye and comes after the
stored value, so it is undone by leaving it alone; only whether it turns bright and dark round matters.

    PixelIntensityRelationship LIN      −log of the stored value: Beer and Lambert's law
    PixelIntensityRelationship LOG      the stored value: log of the exposure, up to gain and offset
    RescaleType or ModalityLUTType OD   −(optical density): linear in log exposure between toe and shoulder
    DISP, or nothing of these           what the modality step makes of it, a P-value or near it: linear in
                                        log exposure, but for a tone curve that no header tells

Presentation Intent Type decides nothing by itself: a picture FOR PROCESSING has one of the first two, one FOR
PRESENTATION mostly the last.

Which way is up: PixelIntensityRelationshipSign where it is stated, else what is shown bright (MONOCHROME1 or
2, through the modality and VOI steps) is what stops X-rays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def attenuation_like(pixels: np.ndarray, attributes: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
    """(row, col) float32 that grows with the line integral, and whether in proportion: up to gain and offset.

    `pixels` (row, col) are stored values, `attributes` what `cohorts.radiograph_header.attributes_of` says.
    """
    stored = pixels.astype(np.float32)
    relationship, sign = attributes["intensity_relationship"], attributes["intensity_sign"]
    through_modality, density = _modality(stored, attributes)
    up = -sign if sign is not None else _shown(attributes)
    if relationship == "LIN":
        full = (1 << attributes["bits_stored"]) - 1
        counts = stored if up < 0 else full - stored
        return -np.log(np.maximum(counts, 1.0)), True
    if relationship == "LOG":
        return up * stored, True
    if density:
        return -through_modality, True
    return up * _rising(attributes) * through_modality, False


def no_pixel(pixels: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """(row, col) bool: stored values that stand for the absence of a measurement (PixelPaddingValue)."""
    padding = attributes["padding"]
    if padding is None:
        return np.zeros(pixels.shape, bool)
    return (pixels >= padding[0]) & (pixels <= padding[1])


def _modality(stored: np.ndarray, attributes: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
    """The modality step's result, and whether that is an optical density."""
    lut, rescale = attributes["modality_lut"], attributes["rescale"]
    if lut is not None:
        place = np.clip(stored - lut["first"], 0, len(lut["data"]) - 1).astype(np.int64)
        return np.asarray(lut["data"], np.float32)[place], lut["type"] == "OD"
    if rescale is not None:
        values = stored * np.float32(rescale["slope"]) + np.float32(rescale["intercept"])
        return values, rescale["type"] == "OD"
    return stored, False


def _shown(attributes: Mapping[str, Any]) -> int:
    """1 where larger stored values are shown brighter, −1 where darker."""
    shown = 1 if attributes["photometric"] == "MONOCHROME2" else -1
    shown *= _rising(attributes)
    if not attributes["windows"] and attributes["voi_luts"]:
        shown *= _direction(attributes["voi_luts"][0])
    return shown


def _rising(attributes: Mapping[str, Any]) -> int:
    """1 where the modality step keeps the order of values, −1 where it turns it round."""
    if attributes["modality_lut"] is not None:
        return _direction(attributes["modality_lut"])
    rescale = attributes["rescale"]
    return -1 if rescale is not None and rescale["slope"] < 0 else 1


def _direction(lut: Mapping[str, Any]) -> int:
    return -1 if lut["data"][-1] < lut["data"][0] else 1
