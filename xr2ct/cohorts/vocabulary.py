"""The words of headers that may be told on: reconstruction kernels, makers, modalities.

These elements hold free text, and free text may name a patient or a place. What is in no list here is
"unrecognised".
"""

from __future__ import annotations

import re
from typing import Literal

UNRECOGNISED = "unrecognised"

_SIEMENS = re.compile(
    r"(?P<letters>[BHCDIJPSTUKQ]|Br|Bl|Bv|Bf|Bp|Bs|Bd|Bm|Hr|Hc|Hp|Hn|Hs|Hv|Hf|Qr|Ur|Ub|Sa|Sd)"
    r"(?P<number>[1-9]\d)(?P<variant>s|m|f|h|d|u|fd|az|uz|sz)?(?:\\(?P<strength>[1-5]))?"
)
"""B30f, I50f with an iterative strength of 3, Br40d, Qr40u: the higher the number the sharper."""

_CANON = re.compile(r"F[CL](?P<number>\d\d)(?:-?[A-Z])?")
"""Toshiba's and Canon's FC01 to FC99."""

_UNITED_IMAGING = re.compile(
    r"(?:B|C|H|L|BODY|BONE|BRAIN|CARD|LUNG)_(?P<word>V?SHARP|V?SOFT|SMOOTH|STANDARD)_[A-Z]{1,2}"
)

_SOFT = {
    # GE
    *("SOFT", "STANDARD", "STND", "HD STND", "HD SOFT", "STANDARD FILTER", "BODY FILTER/STANDARD"),
    # Philips
    *("A", "B", "C", "CA", "CB", "SA", "SB", "XA", "XB", "EB", "IMR1", "ROUTINE"),
    # Canon
    *("BODY", "BODY STANDARD", "AICE BODY"),
}
_SHARP = {
    # GE
    *("LUNG", "HD LUNG", "LUNG PLUS", "LUNG FILTER", "BONE", "HD BONE", "BONE FILTER", "BODY FILTER/BONE"),
    *("BONEPLUS", "BONE PLUS", "HD BONEPLUS", "EDGE", "HD EDGE", "ULTRA", "HD ULTRA"),
    # Philips
    *("D", "E", "F", "L", "XCD", "XCE", "SHARP", "YC", "YD", "YE", "YF"),
    # Canon
    *("BODY SHARP", "AICE LUNG", "LUNG SHARP"),
}
_BETWEEN = {
    # GE
    *("DETAIL", "HD DETAIL", "CHEST", "DETAIL FILTER", "SMOOTH"),
    # Philips
    *("XCA", "XCB", "XCC", "CC", "CD", "EC", "UA", "UB", "UC", "YA", "YB", "SC", "SD", "IMR2", "IMR3"),
}

_MAKERS = (
    (r"SIEMENS", "Siemens"),
    (r"GE|GEMS|GENERAL ELECTRIC", "GE"),
    (r"PHILIPS|PNMS|ADAC|MARCONI|PICKER", "Philips"),
    (r"TOSHIBA", "Toshiba"),
    (r"CANON", "Canon"),
    (r"HITACHI", "Hitachi"),
    (r"FUJIFILM|FUJI", "Fujifilm"),
    (r"UIH|UNITED IMAGING", "United Imaging"),
    (r"NEUSOFT|NMS", "Neusoft"),
    (r"SAMSUNG|NEUROLOGICA", "Samsung"),
    (r"CARESTREAM|KODAK", "Carestream"),
    (r"AGFA", "Agfa"),
    (r"KONICA|MINOLTA", "Konica Minolta"),
    (r"SHIMADZU", "Shimadzu"),
    (r"HOLOGIC|LORAD", "Hologic"),
    (r"VARIAN", "Varian"),
    (r"ELEKTA|CMS", "Elekta"),
    (r"CPS|CTI", "CTI"),
    (r"IMATRON", "Imatron"),
    (r"MINDRAY", "Mindray"),
    (r"SWISSRAY", "Swissray"),
    (r"DIRECT RADIOGRAPHY", "Direct Radiography"),
    (r"LUMISYS", "Lumisys"),
    (r"XR2CT SYNTHETIC", "xr2ct synthetic"),
)
"""In this order: a scan that another firm's program wrote again keeps its scanner's maker."""

_MODALITY = re.compile(
    r"ANN|AR|ASMT|AU|BDUS|BI|BMD|CR|CT|CTPROTOCOL|DG|DX|ECG|EPS|ES|FID|FUSION|GM|HC|HD|IO|IOL|IVOCT"
    r"|IVUS|KER|KO|LEN|LS|M3D|MG|MR|NM|OAM|OCT|OP|OPM|OPT|OPV|OSS|OT|PA|PLAN|PR|PT|PX|REG|RESP|RF|RG"
    r"|RTDOSE|RTIMAGE|RTPLAN|RTRECORD|RTSEGANN|RTSTRUCT|RWV|SEG|SM|SMR|SR|SRF|STAIN|TEXTUREMAP|TG|US"
    r"|VA|XA|XC"
)
"""Defined terms of Modality (0008,0060), retired ones that are still met among them."""


def kernel(text: str) -> str:
    r"""A maker's name of a reconstruction kernel, "" for none, else "unrecognised".

    The two values of Siemens' iterative kernels may be joined by a backslash or a slash: `I50f\3`.
    """
    words = " ".join(text.split())
    if not words:
        return ""
    siemens = re.sub(r"\s*[\\/]\s*", r"\\", words)
    if _SIEMENS.fullmatch(siemens):
        return siemens
    upper = words.upper()
    known = upper in _SOFT | _SHARP | _BETWEEN or _CANON.fullmatch(upper) or _UNITED_IMAGING.fullmatch(upper)
    return upper if known else UNRECOGNISED


def sharpness(kernel: str) -> Literal["soft", "sharp", ""]:
    """What a kernel as `kernel` names it is made for: "soft" tissue, "sharp" lung or bone, "" for neither.

    Siemens numbers up to 49 are soft, since lung windows begin at 50; Toshiba's FC30–39 are for bone and
    FC50–59 and FC80–89 for lung, FC01–19 for the body.
    """
    if match := _SIEMENS.fullmatch(kernel):
        return "soft" if int(match["number"]) < 50 else "sharp"
    if match := _CANON.fullmatch(kernel):
        tens = int(match["number"]) // 10
        return "soft" if tens <= 1 else "sharp" if tens in (3, 5, 8) else ""
    if match := _UNITED_IMAGING.fullmatch(kernel):
        return "sharp" if "SHARP" in match["word"] else "soft"
    return "soft" if kernel in _SOFT else "sharp" if kernel in _SHARP else ""


def manufacturer(text: str) -> str:
    """The maker's one name, "" for none, else "unrecognised"."""
    words = " ".join(re.sub(r"[^A-Z0-9 ]", " ", text.upper()).split())
    if not words:
        return ""
    return next((name for p, name in _MAKERS if re.search(rf"\b(?:{p})\b", words)), UNRECOGNISED)


def modality(text: str) -> str:
    """A defined term of DICOM's, "" for none, else "unrecognised"."""
    word = text.strip().upper()
    return word if not word or _MODALITY.fullmatch(word) else UNRECOGNISED
