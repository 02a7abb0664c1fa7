"""Kernels and makers as scanners write them; free text does not pass."""

from __future__ import annotations

import pytest

from xr2ct.cohorts.vocabulary import UNRECOGNISED, kernel, manufacturer, modality, sharpness


@pytest.mark.parametrize(
    ("text", "name", "sharp"),
    [
        ("B30f", "B30f", "soft"),
        ("B70s", "B70s", "sharp"),
        ("I50f\\3", "I50f\\3", "sharp"),
        ("I50f/3", "I50f\\3", "sharp"),
        ("Br40d", "Br40d", "soft"),
        ("Br36f\\2", "Br36f\\2", "soft"),
        ("Qr40u", "Qr40u", "soft"),
        ("Bl57d", "Bl57d", "sharp"),
        (" STANDARD ", "STANDARD", "soft"),
        ("Lung", "LUNG", "sharp"),
        ("BONEPLUS", "BONEPLUS", "sharp"),
        ("BODY FILTER/STANDARD", "BODY FILTER/STANDARD", "soft"),
        ("DETAIL", "DETAIL", ""),
        ("B", "B", "soft"),
        ("L", "L", "sharp"),
        ("YA", "YA", ""),
        ("FC01", "FC01", "soft"),
        ("FC13-H", "FC13-H", "soft"),
        ("FC51", "FC51", "sharp"),
        ("FC64", "FC64", ""),
        ("B_SHARP_C", "B_SHARP_C", "sharp"),
        ("", "", ""),
    ],
)
def test_kernels_by_their_makers_names(text, name, sharp):
    assert kernel(text) == name
    assert sharpness(kernel(text)) == sharp


@pytest.mark.parametrize(
    "text",
    ["Doe^Jane", "B30f for Mrs Doe", "19501231", "B300f", "Z", "LUNG DOE", "FC1", "I50f\\Doe", "B30f\nDoe"],
)
def test_free_text_is_no_kernel(text):
    assert kernel(text) == UNRECOGNISED
    assert sharpness(UNRECOGNISED) == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GE MEDICAL SYSTEMS", "GE"),
        ('"GE Healthcare"', "GE"),
        ("GEMS", "GE"),
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("SIEMENS / MIM Software", "Siemens"),
        ("Philips Medical Systems / MIMvista", "Philips"),
        ("TOSHIBA", "Toshiba"),
        ("Canon Medical Systems", "Canon"),
        ("Hitachi, Ltd.", "Hitachi"),
        ("FUJI PHOTO FILM Co., ltd.", "Fujifilm"),
        ("UIH", "United Imaging"),
        ("CARESTREAM HEALTH", "Carestream"),
        ("Saint George Hospital", UNRECOGNISED),
        ("Doe^Jane", UNRECOGNISED),
        ("", ""),
    ],
)
def test_makers(text, name):
    assert manufacturer(text) == name


def test_modalities():
    assert [modality(t) for t in ("CT", " dx ", "", "DOE")] == ["CT", "DX", "", UNRECOGNISED]
