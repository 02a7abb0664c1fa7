"""How the seven cohorts differ: one row each of scanner, protocol and disease.

The figures follow what is published of each collection in kind, not in size: slices are thicker and matrices
smaller than the originals', so that a demonstration takes minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from xr2ct.errors import UserError, nearest

Finding = Literal[
    "nodule",
    "calcified-nodule",
    "mass",
    "ground-glass",
    "consolidation",
    "effusion",
    "emphysema",
    "lobectomy",
    "cardiomegaly",
    "lymph-nodes",
    "central-line",
    "airway-tube",
]


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: a Gaussian blur, then that much of the finest detail added again."""

    name: str
    blur_pixels: float
    sharpening: float = 0.0


SOFT = Kernel("B20f", 1.0)
STANDARD = Kernel("STANDARD", 0.7)
PLANNING = Kernel("B30f", 0.85)
LUNG = Kernel("LUNG", 0.45, 0.7)
SHARP = Kernel("B60f", 0.5, 1.0)


@dataclass(frozen=True)
class Encoding:
    """How a cohort's DICOM files are written."""

    syntax: Literal["explicit", "implicit", "rle"] = "explicit"
    signed: bool = True
    padding: int | None = None
    """Stored value outside the circle of reconstruction; the circle is not marked where None."""
    localizer: Literal["none", "own-series", "same-series"] = "none"
    """A scout beside the axial slices, which a reader must leave out."""
    manufacturer_model: str = "generic"


@dataclass(frozen=True)
class Shift:
    """What sets one cohort's scans apart from another's. Pairs are ranges drawn from uniformly."""

    prefix: str
    """Of patients' names, SYN-PREFIX-0001."""
    matrix: int
    """Rows and columns."""
    slice_mm: tuple[float, ...]
    """Slice spacings, one of which is drawn."""
    thickness: float
    """Slice thickness over spacing: above 1 slices overlap."""
    kernels: tuple[Kernel, ...]
    noise_hu: tuple[float, float]
    """Standard deviation in the middle of an average chest, after the kernel."""
    streaks: float
    """Strength of the photon-starvation streaks across shoulders and abdomen."""
    contrast: float
    """Share of patients with contrast agent in their vessels."""
    arms_down: float
    """Share of patients whose arms lie beside them."""
    couch: Literal["curved", "flat"]
    above_mm: tuple[float, float]
    """Scan's upper end over the apex of the lungs."""
    below_mm: tuple[float, float]
    """Scan's lower end under the diaphragm's dome."""
    findings: Mapping[Finding, float]
    """Share of patients with each."""
    fov_mm: tuple[float, float] | None = None
    """Field of view; fitted closely to the patient where None."""
    inflation: tuple[float, float] = (0.55, 1.0)
    """0 full expiration, 1 full inspiration."""
    kvp: int = 120
    encoding: Encoding = Encoding()


SHIFTS: dict[str, Shift] = {
    # Lung-cancer screening and diagnosis: small nodules on arms-up breath-hold scans of many scanners, mostly
    # GE (padding outside the circle), thickness mixed, dose moderate to low. The one that is learnt from.
    "lidc-idri": Shift(
        prefix="LIDC",
        matrix=192,
        slice_mm=(2.0, 2.5, 3.0),
        thickness=1.0,
        kernels=(STANDARD, STANDARD, LUNG),
        noise_hu=(12, 28),
        streaks=0.5,
        contrast=0.35,
        arms_down=0.05,
        couch="curved",
        above_mm=(15, 30),
        below_mm=(95, 120),
        findings={"nodule": 0.8, "calcified-nodule": 0.2, "emphysema": 0.25, "lymph-nodes": 0.15},
        encoding=Encoding(padding=-2000, localizer="own-series", manufacturer_model="LightSpeed-like"),
    ),
    # Hospital patients with COVID-19: shallow breath, arms often down, thick slices, tubes and lines, and
    # ground glass at the periphery that no training patient has.
    "covid-19-ny-sbu": Shift(
        prefix="NYSBU",
        matrix=192,
        slice_mm=(5.0,),
        thickness=1.0,
        kernels=(SOFT, SHARP),
        noise_hu=(20, 45),
        streaks=1.0,
        contrast=0.3,
        arms_down=0.6,
        couch="curved",
        above_mm=(20, 45),
        below_mm=(90, 120),
        findings={
            "ground-glass": 0.9,
            "consolidation": 0.35,
            "effusion": 0.25,
            "cardiomegaly": 0.3,
            "central-line": 0.3,
            "airway-tube": 0.25,
        },
        inflation=(0.15, 0.65),
        encoding=Encoding(
            syntax="rle", signed=False, localizer="own-series", manufacturer_model="Sensation-like"
        ),
    ),
    # A challenge on telling benign from malignant: a nodule or small mass each, contrast as a rule, soft
    # kernel. The originals are 1 mm slices; ours keep their thinness and lie apart.
    "spie-aapm": Shift(
        prefix="SPIE",
        matrix=184,
        slice_mm=(2.0,),
        thickness=0.5,
        kernels=(SOFT,),
        noise_hu=(18, 30),
        streaks=0.4,
        contrast=0.8,
        arms_down=0.0,
        couch="curved",
        above_mm=(10, 20),
        below_mm=(85, 105),
        findings={"nodule": 1.0, "mass": 0.2, "emphysema": 0.3, "lymph-nodes": 0.2},
        encoding=Encoding(manufacturer_model="Brilliance-like"),
    ),
    # COVID-negative patients of many hospitals: other pneumonias, heart failure, effusions, all between.
    "midrc-ricord-1b": Shift(
        prefix="RICORD",
        matrix=176,
        slice_mm=(3.0, 4.0),
        thickness=1.25,
        kernels=(STANDARD, SHARP, SOFT),
        noise_hu=(12, 40),
        streaks=0.7,
        contrast=0.4,
        arms_down=0.3,
        couch="curved",
        above_mm=(15, 40),
        below_mm=(85, 115),
        findings={
            "consolidation": 0.45,
            "effusion": 0.4,
            "cardiomegaly": 0.45,
            "ground-glass": 0.1,
            "emphysema": 0.2,
            "nodule": 0.2,
        },
        inflation=(0.3, 0.9),
        kvp=110,
        encoding=Encoding(padding=-2000, localizer="same-series", manufacturer_model="Revolution-like"),
    ),
    # Immunotherapy of lung cancer: contrast-enhanced staging scans down into the abdomen, advanced tumours,
    # ports, chests after lobectomy.
    "anti-pd-1": Shift(
        prefix="ANTIPD1",
        matrix=192,
        slice_mm=(2.5, 5.0),
        thickness=1.0,
        kernels=(STANDARD, SOFT),
        noise_hu=(8, 16),
        streaks=0.3,
        contrast=1.0,
        arms_down=0.05,
        couch="curved",
        above_mm=(25, 45),
        below_mm=(125, 150),
        findings={
            "mass": 0.7,
            "lymph-nodes": 0.7,
            "nodule": 0.5,
            "effusion": 0.3,
            "lobectomy": 0.3,
            "central-line": 0.5,
        },
        kvp=100,
        encoding=Encoding(syntax="implicit", signed=False, manufacturer_model="Definition-like"),
    ),
    # Radiotherapy planning: wide field of view on a flat couch, free breathing, 3 mm, the whole outline seen.
    "lctsc": Shift(
        prefix="LCTSC",
        matrix=192,
        slice_mm=(3.0,),
        thickness=1.0,
        kernels=(PLANNING,),
        noise_hu=(6, 12),
        streaks=0.2,
        contrast=0.3,
        arms_down=0.0,
        couch="flat",
        above_mm=(30, 45),
        below_mm=(105, 125),
        findings={"mass": 0.5, "nodule": 0.5, "emphysema": 0.3},
        fov_mm=(480, 520),
        inflation=(0.25, 0.6),
        encoding=Encoding(syntax="implicit", manufacturer_model="PlanningCT-like"),
    ),
    # Radiotherapy of large tumours, older planning scanners: flat couch, 3 mm, no contrast, lungs collapsed
    # behind the tumour.
    "nsclc-radiomics": Shift(
        prefix="NSCLC",
        matrix=192,
        slice_mm=(3.0,),
        thickness=1.0,
        kernels=(PLANNING, SOFT),
        noise_hu=(10, 20),
        streaks=0.5,
        contrast=0.1,
        arms_down=0.1,
        couch="flat",
        above_mm=(25, 45),
        below_mm=(105, 130),
        findings={"mass": 1.0, "consolidation": 0.25, "effusion": 0.15, "emphysema": 0.4, "lymph-nodes": 0.5},
        fov_mm=(460, 500),
        inflation=(0.3, 0.7),
        encoding=Encoding(padding=-2000, localizer="own-series", manufacturer_model="Emotion-like"),
    ),
}


def shift_of(cohort: str) -> Shift:
    """How a cohort's scans differ; `UserError` for one that is not of the seven, with the nearest of them."""
    if cohort not in SHIFTS:
        raise UserError(f"no synthetic chests of cohort {cohort!r}: {nearest(cohort, SHIFTS)}")
    return SHIFTS[cohort]
