"""Between the lungs: heart with its chambers, great vessels, trachea and bronchi, oesophagus, fat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xr2ct.cohorts.phantom.grid import Array, Region, blend
from xr2ct.cohorts.phantom.patient import Patient
from xr2ct.cohorts.phantom.shapes import FAR, capsules, ellipsoid, union
from xr2ct.cohorts.phantom.torso import Profiles
from xr2ct.cohorts.phantom.tubes import Tubes, curve, join, path

Points = Sequence[tuple[float, float, float]]

HEART_REACH_MM = 105.0
MYOCARDIUM, FAT, SOFT_TISSUE = 48.0, -95.0, 38.0

# The reference chest's vessels as (x, y, z) and radius at each point, mm; x to the left, y to the back.
AORTA = (
    [(-2, -14, -52), (-18, -24, -22), (-19, -20, 6), (-8, -9, 32), (8, 8, 42), (21, 23, 33), (26, 36, 10)],
    [15, 16, 15.5, 14.5, 14, 13.5, 13],
)
PULMONARY_TRUNK = ([(14, -40, -46), (21, -34, -24), (21, -16, -9)], [14, 14, 13])
RIGHT_PULMONARY = ([(21, -16, -9), (0, 0, -14), (-26, 3, -19), (-44, 7, -27)], [12, 11.5, 10.5, 8.5])
LEFT_PULMONARY = ([(21, -16, -9), (33, 6, -4), (47, 13, -16)], [12, 11.5, 9])
CAVA = ([(-25, -10, 42), (-28, -8, 5), (-28, -9, -42)], [8.5, 9, 10])
VEINS = (
    ([(-25, -10, 42), (-2, -30, 50), (26, -28, 66), (44, -26, 92)], [7, 6.5, 6.5, 6]),
    ([(-25, -10, 42), (-31, -15, 66), (-44, -24, 92)], [7, 7, 6]),
    ([(-44, -24, 92), (-72, -24, 100), (-130, 2, 98)], [6, 5, 4.5]),
    ([(44, -26, 92), (72, -24, 100), (130, 2, 98)], [6, 5, 4.5]),
)
BRANCHES = (
    ([(-6, -6, 40), (-15, -6, 72), (-22, -4, 106), (-22, -4, 130)], [6.5, 6, 5, 4]),
    ([(-22, -4, 106), (-60, -2, 109), (-110, 6, 101)], [5, 4.5, 4.5]),
    ([(5, 4, 46), (13, 0, 80), (18, -2, 118)], [4.5, 4, 4]),
    ([(17, 18, 42), (22, 14, 80), (34, 8, 106), (62, 0, 109), (110, 6, 101)], [5.5, 5, 5, 4.5, 4.5]),
)
TRACHEA = [(0, 2, 130), (0, 3, 95), (1, 10, 50), (3, 18, 2)]
RIGHT_BRONCHUS = [(3, 18, 2), (-18, 15, -14), (-38, 11, -24)]
LEFT_BRONCHUS = [(3, 18, 2), (24, 17, -17), (44, 13, -26)]
RIGHT_HILUM, LEFT_HILUM = (-44, 8, -27), (47, 13, -24)


@dataclass(frozen=True)
class Vessels:
    """Distances (mm) to the mediastinum's tubes over a box of voxels."""

    great: dict[str, Array]
    """By the blood in them: veins, lungs, arteries."""
    airway: Array
    oesophagus: Array
    gas: Array
    """In the oesophagus, here and there."""

    @classmethod
    def of(cls, region: Region, p: Patient, profiles: Profiles, rng: np.random.Generator) -> Vessels:
        great = {kind: capsules(region, t, 14) for kind, t in great_vessels(p, profiles).items()}
        gullet = _oesophagus(p, profiles)
        radii = rng.uniform(-4, 2.5, len(gullet.start) + 1)
        gas = Tubes(gullet.start, gullet.end, radii[:-1], radii[1:])
        return cls(great, *(capsules(region, t) for t in (airways(p), gullet, gas)))

    def part(self, place: tuple[slice, slice, slice]) -> Vessels:
        """Over a part of the box."""
        great = {kind: distance[place] for kind, distance in self.great.items()}
        return Vessels(great, self.airway[place], self.oesophagus[place], self.gas[place])


@dataclass(frozen=True)
class Mediastinum:
    """Distances (mm) over a box of voxels, of what the lungs must leave room for and what is drawn in it."""

    heart: Array
    """The pericardium's content."""
    heart_box: Region
    heart_local: tuple[slice, slice, slice]
    """Where its box lies in the whole."""
    chambers: dict[str, Array]
    """The blood in each, over the heart's box."""
    vessels: Vessels
    core: Array
    """The fat around all that."""


def hilum(p: Patient, side: int) -> Array:
    """(3,) where vessels and bronchus enter a lung."""
    return _moved(p, [RIGHT_HILUM if side < 0 else LEFT_HILUM])[0]


def heart_centre(p: Patient) -> Array:
    """(3,): it stands on the middle of the diaphragm, a little left."""
    tendon = 0.5 * sum(p.dome) - 22 * p.length
    z = tendon + 49 * p.heart * p.length
    return np.array([18 * p.width / 120 + p.mediastinal_shift, -24 * p.depth / 88, z])


def build(
    region: Region, p: Patient, profiles: Profiles, vessels: Vessels, rng: np.random.Generator
) -> Mediastinum:
    """Distances of everything between the lungs."""
    centre = heart_centre(p)
    box, local = region.within(centre - HEART_REACH_MM, centre + HEART_REACH_MM)
    inner, chambers = _heart(box, p)
    heart = np.full(region.shape, FAR, np.float32)
    heart[local] = inner
    return Mediastinum(heart, box, local, chambers, vessels, _core(region, p, profiles, rng))


def room(m: Mediastinum) -> Array:
    """Distance to everything that lungs must go round."""
    taken = union(m.heart - 3, m.core, 10)
    for vessel in m.vessels.great.values():
        taken = union(taken, vessel - 2.5, 6)
    return np.minimum(taken, np.minimum(m.vessels.airway - 3.5, m.vessels.oesophagus - 3))


def draw(region: Region, hu: Array, m: Mediastinum, p: Patient, rng: np.random.Generator) -> None:
    """All of it, in place in the region's HU; the fat must be there already."""
    _draw_heart(hu[m.heart_local], m, p, rng)
    for kind, value in zip(("veins", "lungs", "arteries"), p.blood, strict=True):
        blend(hu, SOFT_TISSUE, region.coverage(m.vessels.great[kind] - 1.2))
        blend(hu, value, region.coverage(m.vessels.great[kind]))
    blend(hu, SOFT_TISSUE, region.coverage(m.vessels.oesophagus))
    blend(hu, -700.0, region.coverage(m.vessels.gas))
    blend(hu, SOFT_TISSUE, region.coverage(m.vessels.airway - 1.6))
    blend(hu, -995.0, region.coverage(m.vessels.airway))


def _draw_heart(hu: Array, m: Mediastinum, p: Patient, rng: np.random.Generator) -> None:
    veins, lungs, arteries = p.blood
    box, heart = m.heart_box, m.heart[m.heart_local]
    blend(hu, 15.0, box.coverage(np.abs(heart - 2) - np.float32(0.8)))  # pericardium
    blend(hu, FAT, box.coverage(heart - 1))
    thickness = {"left ventricle": 9, "right ventricle": 3, "right atrium": 2, "left atrium": 2}
    walls = np.minimum.reduce([m.chambers[c] - t for c, t in thickness.items()])
    muscle = MYOCARDIUM + 0.25 * (arteries - 40)
    blend(hu, muscle + 4 * box.noise(rng, 12), box.coverage(np.maximum(walls, heart)))
    blood = {
        "left ventricle": arteries,
        "right ventricle": 0.5 * (veins + lungs),
        "right atrium": veins,
        "left atrium": 0.3 * lungs + 0.7 * arteries,
    }
    for name, value in blood.items():
        blend(hu, value, box.coverage(m.chambers[name]))


def _moved(p: Patient, points: Points) -> Array:
    """Drawn over with the mediastinum, the more the nearer to the heart."""
    placed = p.place(points)
    placed[:, 0] += p.mediastinal_shift * np.clip(1 - placed[:, 2] / 120, 0, 1)
    return placed


def great_vessels(p: Patient, profiles: Profiles) -> dict[str, Tubes]:
    """By the blood in them. The heart's ends are moved to where the heart is."""
    heart = heart_centre(p)
    size = np.sqrt(p.heart / 0.9) * np.sqrt(p.width / 120)

    def vessel(drawn: tuple[Points, Sequence[float]], steps: int = 14) -> Tubes:
        points = _moved(p, drawn[0])
        low = np.clip((-15 - points[:, 2]) / 35, 0, 1)[:, None]  # follows the heart's height
        points[:, 2:] += low * (heart[2] + 76)
        return path(points, size * np.array(drawn[1], float), steps)

    z = np.array([10, -30, -80, -140, -200, -300, -450]) * p.length
    spine = np.stack([profiles.at(z, c) for c in (profiles.spine_x, profiles.spine_y)], 1)
    beside = np.array([26, 25, 23, 17, 8, 4, 4])
    before = np.array([24, 20, 19, 19, 22, 30, 32])
    descending = np.stack([spine[:, 0] + beside, spine[:, 1] - before, z], 1)
    descending[0] = _moved(p, [AORTA[0][-1]])[0]
    lower_cava = np.array(
        [heart + np.array([-34, 20, -22]), heart + np.array([-36, 32, -70]), (-20, 30, -300), (-18, 40, -450)]
    )
    return {
        "veins": join([vessel(CAVA), *(vessel(v) for v in VEINS), path(lower_cava, 12 * size, 14)]),
        "lungs": join([vessel(PULMONARY_TRUNK), vessel(RIGHT_PULMONARY), vessel(LEFT_PULMONARY)]),
        "arteries": join(
            [vessel(AORTA, 26), path(descending, size * np.array([13, 12.5, 12, 11.5, 10.5, 9, 8]), 36)]
            + [vessel(b) for b in BRANCHES]
        ),
    }


def airways(p: Patient) -> Tubes:
    """Lumen of trachea and main bronchi."""
    size = np.sqrt(p.width / 120)
    return join(
        [
            path(_moved(p, TRACHEA), 8.8 * size, 20),
            path(_moved(p, RIGHT_BRONCHUS), np.array([7.5, 7, 5.8]) * size, 10),
            path(_moved(p, LEFT_BRONCHUS), np.array([7.0, 6.2, 5.2]) * size, 10),
        ]
    )


def _oesophagus(p: Patient, profiles: Profiles) -> Tubes:
    z = np.linspace(130, -170, 12) * p.length
    girth = np.interp(z, [-170, 90], [20, 14]) * 0.78
    points = np.stack(
        [np.full(12, 5.0) + p.mediastinal_shift * 0.3, profiles.at(z, profiles.spine_y) - girth - 10, z], 1
    )
    points[:, 0] += np.interp(z, [-170, -110], [16, 0])
    return path(curve(points, 20), 7.0)


def _heart(region: Region, p: Patient) -> tuple[Array, dict[str, Array]]:
    """The pericardium's content, and the blood in each chamber."""
    size = p.heart * np.array([p.width / 120, 0.5 + 0.5 * p.depth / 88, 0.5 + 0.5 * p.length])
    turn = np.radians(p.heart_turn_deg)
    turned = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    centre = heart_centre(p)

    def chamber(at: tuple[float, ...], radii: tuple[float, ...], long_axis: tuple[float, ...]) -> Array:
        axis = turned @ np.array(long_axis)
        axis /= np.linalg.norm(axis)
        second = np.cross([0.0, 1.0, 0.0], axis)
        second /= np.linalg.norm(second)
        axes = np.stack([axis, second, np.cross(axis, second)])
        return ellipsoid(region, centre + turned @ (np.array(at) * size), np.array(radii) * size.mean(), axes)

    apex = (0.74, -0.46, -0.49)
    left_outer = chamber((32, -4, -12), (55, 36, 37), apex)
    right_outer = chamber((4, -30, -12), (50, 34, 27), (0.80, -0.22, -0.55))
    right_atrium = chamber((-36, -6, -4), (34, 24, 24), (0.1, 0.0, 1.0))
    left_atrium = chamber((2, 27, 14), (35, 25, 21), (1.0, 0.1, 0.0))
    heart = union(union(left_outer, right_outer, 14), union(right_atrium, left_atrium, 14), 14)
    right_ventricle = np.maximum(right_outer + 8, -(left_outer - 1))
    chambers = {
        "left ventricle": left_outer + 15,
        "right ventricle": right_ventricle,
        "right atrium": np.maximum(right_atrium + 6, -(right_outer - 2)),
        "left atrium": np.maximum(left_atrium + 5, -(left_outer - 2)),
    }
    return heart - 1, chambers


def _core(region: Region, p: Patient, profiles: Profiles, rng: np.random.Generator) -> Array:
    """Fat between the lungs: broad about the great vessels, a thin fold behind the sternum."""
    z = profiles.z / p.length
    broad = (
        np.interp(z, [-450, -200, -90, -30, 0, 40, 75, 105], [14, 14, 14, 24, 31, 30, 27, 27]) * p.width / 120
    )
    over = np.interp(profiles.z, [-60, 120], [p.mediastinal_shift, 0]) + np.interp(
        profiles.z, [-150, 60], [8, 0]
    )
    across, shifted = profiles.along(region.z, broad, over)
    dx = np.abs(region.x - shifted + 3 * region.noise(rng, 70))
    middle = np.float32(6 * p.depth / 88)
    bell = np.exp(-(((region.y - middle) / np.float32(0.42 * p.depth)) ** 2))
    return np.float32(0.9) * (dx - 4.5 - (across - 4.5) * bell)


def nodes(p: Patient, rng: np.random.Generator) -> list[tuple[Array, Array]]:
    """Enlarged lymph nodes beside trachea and carina: (centre, radii) of each."""
    spots = _moved(p, [(-16, 2, 28), (-14, 14, 8), (2, 19, -18), (14, 0, 18), (-30, 9, -22), (34, 11, -18)])
    chosen = rng.permutation(len(spots))[: rng.integers(2, 6)]
    return [(spots[k] + rng.normal(0, 3, 3), rng.uniform(6, 13, 3)) for k in chosen]
