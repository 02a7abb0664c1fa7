"""The outlines of a chest by height, and the wall between: skin, fat, muscle, breasts, shoulders, arms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from xr2ct.cohorts.phantom.grid import Array, Region
from xr2ct.cohorts.phantom.patient import Patient
from xr2ct.cohorts.phantom.shapes import capsules, ellipsoid, superellipse, union
from xr2ct.cohorts.phantom.tubes import Tubes, join, path

TABLE_LOW, TABLE_HIGH = -450.0, 300.0

# z (reference mm over the carina): rib cage's half width, half depth, and how far its middle lies back,
# the last two in half depths. The apex of the lungs is at 104.
CAGE = np.array(
    [
        (-450, 0.90, 0.90, 0.00),
        (-240, 0.95, 0.94, 0.00),
        (-200, 0.98, 0.97, 0.00),
        (-150, 1.00, 1.00, 0.00),
        (-80, 1.00, 1.00, 0.00),
        (-40, 0.98, 0.98, 0.00),
        (0, 0.93, 0.93, 0.02),
        (30, 0.86, 0.86, 0.06),
        (55, 0.76, 0.78, 0.12),
        (75, 0.64, 0.66, 0.18),
        (90, 0.50, 0.52, 0.25),
        (99, 0.34, 0.36, 0.30),
        (104, 0.14, 0.16, 0.32),
        (107, 0.04, 0.05, 0.33),
        (300, 0.04, 0.05, 0.33),
    ]
)
# z: the body's half width beyond the cage as (cage, muscle, fat) shares, then its front likewise.
BODY = np.array(
    [
        (-450, 0.98, 0.8, 1.2, 1.00, 0.8, 1.4),
        (-240, 0.98, 0.9, 1.1, 1.00, 0.7, 1.2),
        (-150, 1.00, 1.0, 1.0, 1.00, 0.6, 0.8),
        (-80, 1.00, 1.0, 1.0, 0.98, 0.7, 0.7),
        (0, 1.00, 1.2, 1.0, 0.90, 0.9, 0.7),
        (40, 0.98, 1.7, 1.0, 0.72, 1.0, 0.7),
        (75, 0.95, 2.1, 0.9, 0.48, 1.0, 0.6),
        (100, 0.82, 1.6, 0.7, 0.32, 0.8, 0.5),
        (125, 0.60, 0.9, 0.5, 0.28, 0.6, 0.4),
        (150, 0.48, 0.6, 0.3, 0.32, 0.6, 0.3),
        (300, 0.46, 0.6, 0.3, 0.32, 0.6, 0.3),
    ]
)


@dataclass(frozen=True)
class Profiles:
    """Curves over z at 1 mm, looked up rather than computed for each voxel."""

    z: Array
    width: Array
    depth: Array
    middle: Array
    """y of the cage's middle."""
    spine_x: Array
    spine_y: Array
    """Of the vertebral bodies' middle."""
    body_width: Array
    body_front: Array
    body_back: Array

    @classmethod
    def of(cls, p: Patient) -> Profiles:
        z = np.arange(TABLE_LOW, TABLE_HIGH + 1)
        reference = z / p.length
        width, depth, middle = PchipInterpolator(CAGE[:, 0], CAGE[:, 1:])(reference).T
        shares = PchipInterpolator(BODY[:, 0], BODY[:, 1:])(reference).T
        above = np.maximum(z + 60, 0) / 150
        below = np.maximum(-60 - z, 0) / 180
        spine_y = p.depth - 29 - p.kyphosis * above**2 * np.exp(-((above / 2.2) ** 4)) - 16 * below**2
        body_back = spine_y + 57 + 0.7 * p.muscle + 0.7 * p.fat
        return cls(
            z,
            width * p.width,
            depth * p.depth,
            middle * p.depth,
            p.scoliosis * np.sin((z + 60) / 70) * np.exp(-(((z + 60) / 200) ** 2)),
            spine_y,
            shares[0] * p.width + shares[1] * p.muscle + shares[2] * p.fat,
            -shares[3] * p.depth - shares[4] * p.muscle - shares[5] * p.fat - 4,
            body_back,
        )

    def at(self, z: float | Array, curve: Array) -> Array:
        """A curve's value at exact heights."""
        return np.interp(z, self.z, curve)

    def along(self, z: Array, *curves: Array) -> list[Array]:
        """Curves' values for a whole array of heights, to the nearest mm; float32."""
        index = (z - np.float32(TABLE_LOW - 0.5)).astype(np.intp)
        return [np.take(c.astype(np.float32), index, mode="clip") for c in curves]

    def cage_point(self, angle: Array, z: Array, outward_mm: float, side: int = 1) -> Array:
        """(n, 3) points so far outside the cage, `angle` from the spine round to the sternum (π)."""
        u, v = np.sin(angle) ** 2, np.cos(angle) ** 2
        level = np.sqrt(np.sqrt(u * u + v * v + 1.2 * u * v))
        width, depth = self.at(z, self.width), self.at(z, self.depth)
        x = np.sin(angle) * (width / level + outward_mm)
        y = np.cos(angle) * (depth / level + outward_mm) + self.at(z, self.middle)
        return np.stack([side * x + 0.5 * self.at(z, self.spine_x), y, np.broadcast_to(z, x.shape)], 1)


def cage_distance(region: Region, profiles: Profiles) -> Array:
    """To the inner face of the ribs."""
    width, depth, middle, bent = profiles.along(
        region.z, profiles.width, profiles.depth, profiles.middle, 0.5 * profiles.spine_x
    )
    return superellipse(region.x - bent, region.y - middle, width, depth)


def arm_paths(p: Patient) -> dict[int, Tubes]:
    """The axis of each upper arm from the shoulder joint: beside the trunk, or over the head."""
    arms = {}
    for side in (-1, 1):
        joint = shoulder_joint(p, side)
        if p.arms_down:
            beside = p.width + p.muscle + 1.1 * p.fat + 48
            bones = [
                joint,
                (side * (beside - 6), 14, 10),
                (side * beside, 18, -180),
                (side * beside, 5, -420),
            ]
        else:
            bones = [joint, joint + np.array([side * 35, -14, 60]), joint + np.array([side * 55, -25, 160])]
        arms[side] = path(np.array(bones, float), 40 + 0.35 * p.fat)
    return arms


def shoulder_joint(p: Patient, side: int) -> Array:
    """(3,) the middle of the head of the humerus."""
    lift = 0 if p.arms_down else 14
    return np.array([side * (p.width + 30), 10, 74 * p.length + lift])


def body_distance(region: Region, p: Patient, profiles: Profiles, rng: np.random.Generator) -> Array:
    """To the skin."""
    middle = 0.5 * (profiles.body_front + profiles.body_back)
    half = 0.5 * (profiles.body_back - profiles.body_front)
    width, depth, mid, back = profiles.along(
        region.z, profiles.body_width, half, middle, profiles.body_back - 5
    )
    body = superellipse(region.x, region.y - mid, width, depth)
    body += np.float32(1.5) * region.noise(rng, 90)
    arms = arm_paths(p)
    for side in (-1, 1):
        joint = shoulder_joint(p, side)
        root = np.array([side * 0.7 * p.width, 18, 80 * p.length])
        shoulder = join([path(np.stack([root, joint]), [44, 42 + 0.3 * p.fat]), arms[side]])
        low, high = _reach(shoulder, 75)
        box, local = region.within(low, high)
        body[local] = union(body[local], capsules(box, shoulder, 30), 12)
    if p.female:
        size = 0.75 + 0.02 * p.fat
        for side in (-1, 1):
            z = -38 * p.length
            centre = (side * 0.56 * p.width, float(profiles.at(z, profiles.body_front)) + 14, z)
            radii = np.array([50, 30, 52]) * size
            box, local = region.within(np.subtract(centre, radii + 20), np.add(centre, radii + 20))
            body[local] = union(body[local], ellipsoid(box, centre, radii), 18)
    # the back lies flat on the couch
    return -union(-body, back - region.y, 14)


def _reach(tubes: Tubes, margin: float) -> tuple[Array, Array]:
    ends = np.concatenate([tubes.start, tubes.end])
    return ends.min(0) - margin, ends.max(0) + margin


def wall(region: Region, body: Array, cage: Array, p: Patient, rng: np.random.Generator) -> Array:
    """HU of skin, fat and muscle everywhere within the body, as if there were no bones or organs."""
    uneven = region.noise(rng, 60)
    depth = -body
    fat = np.float32(p.fat) * (1 + np.float32(0.15) * uneven)
    # less fat over the shoulders and the spine than on the sides and the belly
    fat *= np.clip(np.float32(0.85) - region.z / np.float32(350), 0.45, 1.5)
    hu = np.full(region.shape, -100, np.float32)
    muscle = region.coverage(fat + 2 - depth)
    # muscles lie in layers round the ribs, with thin fat between; more of it in the armpits
    layer = (cage + 9 * uneven) / np.float32(15)
    between = 7 * (np.abs(layer - np.rint(layer)) - np.float32(0.06))
    marbled = np.clip(between + 1.2 * np.abs(region.noise(rng, 38)), 0, 1)
    intercostal = np.clip((9 - cage) / 4, 0, 1)
    hu += muscle * np.maximum(marbled, intercostal) * 152
    for side in (-1, 1):
        centre, radii = (side * (p.width + 12), -6, 42 * p.length), (20, 34, 40)
        box, local = region.within(np.subtract(centre, 50), np.add(centre, 50))
        pit = np.maximum(ellipsoid(box, centre, radii) + 6 * uneven[local], 9 - cage[local])
        hu[local] -= (hu[local] + 100) * np.clip(0.5 - pit / 8, 0, 0.9)
    hu += 7 * uneven
    if p.female:
        gland = np.clip(region.noise(rng, 14) - np.float32(0.2), 0, 1)
        front = np.clip((depth - 8) / 6, 0, 1) * (1 - muscle) * (region.y < -0.75 * p.depth)
        hu += gland * front * np.clip(1 - np.abs(region.z + 38 * p.length) / 60, 0, 1) * 110
    skin = np.clip(1 - np.abs(depth - np.float32(1)) / 2, 0, 1)
    hu += skin * (np.float32(10) - hu)
    return hu
