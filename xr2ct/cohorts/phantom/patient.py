"""One synthetic patient: build, breath, pose and disease, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xr2ct.cohorts.phantom.grid import Array
from xr2ct.cohorts.phantom.shifts import Finding, Shift
from xr2ct.seeds import generator

REFERENCE_WIDTH_MM, REFERENCE_DEPTH_MM = 120.0, 88.0
"""Half the inner width and depth of the rib cage that organs are drawn for; others are stretched."""

ENHANCED = np.array([[380.0, 340.0, 190.0], [230.0, 250.0, 330.0], [150.0, 150.0, 160.0]])
"""HU of veins, pulmonary arteries and aorta in the pulmonary, the aortic and the late phase."""


@dataclass(frozen=True)
class Patient:
    """Lengths in mm. Left and right are the patient's own."""

    female: bool
    length: float
    """Of the trunk, over the reference."""
    width: float
    """Half the rib cage's inner width at its widest."""
    depth: float
    """Half the rib cage's inner depth."""
    fat: float
    """Under the skin of the chest's side."""
    muscle: float
    inflation: float
    dome: tuple[float, float]
    """z of the diaphragm's domes, right and left."""
    heart: float
    """Size over the reference."""
    heart_turn_deg: float
    """Of the heart's axis in the coronal plane: a tall chest's hangs, a stout one's lies."""
    kyphosis: float
    scoliosis: float
    """Sideways swing of the spine, with sign."""
    mediastinal_shift: float
    """Of heart and great vessels to the left: volume lost in a lung draws them over."""
    bone_hu: float
    """Of spongy bone: age."""
    rib_slope: float
    arms_down: bool
    rotation: Array
    """(3, 3) patient from scanner."""
    offset: tuple[float, float]
    """x and y of the patient in the scanner."""
    contrast: bool
    """Contrast agent in the vessels."""
    blood: tuple[float, float, float]
    """HU in veins and right heart, in pulmonary arteries, in left heart and aorta."""
    findings: frozenset[Finding]
    lost_side: int
    """−1 the right lung, 1 the left: the one that disease has shrunk, or that carries the tumour."""

    def place(self, points: Sequence[tuple[float, float, float]] | Array) -> Array:
        """(n, 3) of the reference chest → this one's, by width, depth and length."""
        scale = (self.width / REFERENCE_WIDTH_MM, self.depth / REFERENCE_DEPTH_MM, self.length)
        return np.asarray(points, float) * scale


def draw_patient(seed: int, shift: Shift) -> Patient:
    """Everything that is a number; where the vessels run and the noise falls has streams of its own."""
    rng = generator(seed, "patient")
    female = bool(rng.random() < 0.45)
    stout = float(rng.beta(2, 3.2))
    length = float(rng.normal(0.9 if female else 0.96, 0.045))
    inflation = float(rng.uniform(*shift.inflation))
    findings = frozenset(f for f, share in shift.findings.items() if rng.random() < share)
    lost_side = -1 if rng.random() < 0.55 else 1
    dome = -(76 + 42 * inflation) * length
    gap = rng.uniform(7, 20)
    domes = [dome, dome - gap]
    drawn_over = rng.normal(0, 3.0)
    if "lobectomy" in findings:
        drawn_over += lost_side * rng.uniform(10, 20)
        domes[0 if lost_side < 0 else 1] += rng.uniform(15, 35)
    contrast = bool(rng.random() < shift.contrast)
    plain = rng.uniform(34, 48)
    veins, lungs, arteries = (float(v) for v in rng.dirichlet([1.0, 1.0, 1.0]) @ ENHANCED)
    heart = rng.normal(0.93, 0.05) * (1.22 if "cardiomegaly" in findings else 1.0)
    angles = np.radians(rng.normal(0, (1.8, 1.8, 2.5)))
    return Patient(
        female=female,
        length=length,
        width=float(rng.normal(110 if female else 120, 6) + 6 * stout),
        depth=float(rng.normal(74 if female else 82, 4) + 7 * stout + 4 * inflation),
        fat=float(7 + 32 * stout**1.4 + (4 if female else 0)),
        muscle=float(rng.normal(14 if female else 18, 2)),
        inflation=inflation,
        dome=(float(domes[0]), float(domes[1])),
        heart=float(np.clip(heart, 0.8, 1.28)),
        heart_turn_deg=float(14 * (inflation - 0.6) - 22 * (stout - 0.4) + rng.normal(0, 4)),
        kyphosis=float(rng.uniform(6, 20)),
        scoliosis=float(rng.normal(0, 3.5)),
        mediastinal_shift=float(drawn_over),
        bone_hu=float(rng.uniform(110, 260)),
        rib_slope=float(rng.uniform(0.8, 1.15)),
        arms_down=bool(rng.random() < shift.arms_down),
        rotation=_turn(*angles),
        offset=(float(rng.normal(0, 7)), float(rng.normal(0, 5))),
        contrast=contrast,
        blood=(veins, lungs, arteries) if contrast else (plain, plain, plain),
        findings=findings,
        lost_side=lost_side,
    )


def _turn(about_x: float, about_y: float, about_z: float) -> Array:
    """Rotation matrix: nod, lean, then turn about the long axis."""
    cx, sx, cy, sy, cz, sz = (f(a) for a in (about_x, about_y, about_z) for f in (np.cos, np.sin))
    nod = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    lean = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return turn @ lean @ nod
