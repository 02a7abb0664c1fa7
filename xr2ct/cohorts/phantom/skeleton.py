"""Bones: spine, twelve pairs of ribs with their cartilages, sternum, clavicles, scapulae, upper arms."""

from __future__ import annotations

import numpy as np

from xr2ct.cohorts.phantom.grid import Array, Grid, Region, blend
from xr2ct.cohorts.phantom.patient import Patient
from xr2ct.cohorts.phantom.shapes import superellipse
from xr2ct.cohorts.phantom.torso import Profiles, arm_paths, shoulder_joint
from xr2ct.cohorts.phantom.tubes import Tubes, deposit, flat_path, join, path, splat

CORTEX = 1050.0
FLATNESS = 0.78  # of a vertebral body: its depth over its width
# for each rib: how far round it goes (degrees from the spine) and how far its front end lies below its head
RIB_END_DEG = (138, 146, 149, 150, 149, 146, 141, 131, 119, 106, 80, 56)
RIB_DROP_MM = (30, 46, 60, 68, 75, 82, 87, 86, 80, 68, 48, 34)


def vertebra_heights(p: Patient) -> Array:
    """z of the discs from below L5 up to above C5, 21 in all, ascending."""
    sizes = np.concatenate([[15, 15, 16], 18.6 + 0.65 * np.arange(1, 13), [28, 29, 30, 30, 30]]) * p.length
    top = 98 * p.length + sizes[:3].sum()
    return (top - np.concatenate([[0], np.cumsum(sizes)]))[::-1]


def rib_head_heights(p: Patient) -> Array:
    """(12,) z of the heads of ribs 1 to 12: near the top of the vertebra of the same number."""
    return vertebra_heights(p)[::-1][3:15] - 4 * p.length


def draw_spine(region: Region, hu: Array, p: Patient, profiles: Profiles, rng: np.random.Generator) -> None:
    """Vertebral bodies with plates and discs, canal and arches, into the region's HU."""
    y = profiles.spine_y
    column, local = region.within((-30, y.min() - 32, -450), (30, y.max() + 70, 300))
    view = hu[local]
    ends = vertebra_heights(p)
    number = np.interp(profiles.z, ends, np.arange(len(ends)))
    counted, per_mm, radius, middle_x, middle_y = profiles.along(
        column.z, number, np.gradient(number), _girth(profiles.z), profiles.spine_x, y
    )
    per_mm = np.maximum(per_mm, np.float32(1e-3))
    phase = counted % 1
    dx, dy = column.x - middle_x, column.y - middle_y
    waist = np.float32(1.6) * (1 - (2 * phase - 1) ** 2)
    body = superellipse(dx, dy, radius - waist, np.float32(FLATNESS) * radius - waist)
    blend(view, 85.0, column.coverage(body))  # discs, where nothing else comes on top
    solid = np.maximum(body, (np.abs(phase - 0.5) - np.float32(0.42)) / per_mm)
    blend(view, 430.0, column.coverage(solid))
    blend(view, p.bone_hu + 25 * column.noise(rng, 6), column.coverage(solid + 2))
    ring = np.sqrt(dx * dx + ((dy - np.float32(FLATNESS) * radius - 8) * np.float32(1.15)) ** 2)
    arch = np.maximum(
        np.abs(ring - 11) - np.float32(2.6), np.abs(phase - 0.55) / per_mm * 0.8 - 6.5 * p.length
    )
    blend(view, 520.0, column.coverage(np.maximum(arch, -body)))
    blend(view, 25.0, column.coverage(np.maximum(ring - 8, -body)))


def _girth(z: Array) -> Array:
    """Half the width of a vertebral body."""
    return np.interp(z, [-300, -170, 90, 200], [24, 20, 14, 11])


def _processes(p: Patient, profiles: Profiles) -> Tubes:
    """Spinous and transverse, one set a vertebra."""
    ends, tall, processes = vertebra_heights(p), np.array([0.0, 0.0, 1.0]), []
    for top, bottom in zip(ends[1:], ends[:-1], strict=True):
        z = 0.35 * bottom + 0.65 * top
        x, y = float(profiles.at(z, profiles.spine_x)), float(profiles.at(z, profiles.spine_y))
        back = y + FLATNESS * float(_girth(z)) + 17
        spinous = np.array([(x, back, z - 3), (x, back + 11, z - 12), (x, back + 21, z - 22)])
        processes.append(flat_path(spinous, [2.6, 2.2, 2.8], tall, 2.0))
        for side in (-1, 1):
            transverse = np.array([(x + side * 12, back - 9, z), (x + side * 34, back + 1, z + 2)])
            processes.append(flat_path(transverse, [4.2, 3.6], tall, 2.0))
    return join(processes)


def rib_tubes(p: Patient, profiles: Profiles) -> tuple[Tubes, Tubes]:
    """Ribs, and the cartilages that join them to the sternum."""
    ribs, cartilages = [], []
    for n, head_z in enumerate(rib_head_heights(p)):
        last = np.radians(RIB_END_DEG[n])
        drop = RIB_DROP_MM[n] * p.length * p.rib_slope * (0.85 + 0.25 * (1 - p.inflation))
        t = np.linspace(0, 1, 34)
        angle = np.radians(20) + t * (last - np.radians(20))
        z = head_z - 4 - drop * t**1.2
        for side in (-1, 1):
            arc = profiles.cage_point(angle, z, 4.0, side)
            x, y = float(profiles.at(head_z, profiles.spine_x)), float(profiles.at(head_z, profiles.spine_y))
            neck = [(x + side * 15, y + 5, head_z), (x + side * 26, min(y + 17, arc[0, 1]), head_z - 1)]
            points = np.concatenate([neck, arc])
            radius = np.interp(np.linspace(0, 1, len(points)), [0, 0.1, 0.5, 1], [3.5, 3.2, 3.5, 3.3])
            radius *= 0.85 if n in (0, 10, 11) else 1.0
            ribs.append(flat_path(points, radius, np.array([0.0, 0.0, 1.0]), 1.9))
            if n < 10:
                cartilages.append(_cartilage(p, profiles, n, arc[-1], side))
    return join(ribs), join(cartilages)


def _cartilage(p: Patient, profiles: Profiles, n: int, end: Array, side: int) -> Tubes:
    z = min(end[2] + (4, 4, 6, 10, 18, 30, 40, 45, 45, 45)[n], (58 - 19 * n) * p.length if n < 7 else 0)
    z = max(z, sternum_heights(p)[0] - 6)
    reach = (20, 19, 18, 18, 17, 15, 12, 40, 60, 75)[n]
    front = float(profiles.at(z, profiles.middle - profiles.depth)) - 4
    # the last three lean on the cartilage above rather than reach the sternum
    target = np.array([side * reach, front + 0.003 * reach**2, z])
    middle = 0.5 * (end + target) - (0, 2, 4)
    return path(np.stack([end, middle, target]), [4.6, 4.8, 5.2], 8)


def sternum_heights(p: Patient) -> tuple[float, float]:
    """z of its lower and upper end."""
    return -98 * p.length, 58 * p.length


def _sternum(p: Patient, profiles: Profiles) -> Tubes:
    low, high = sternum_heights(p)
    z = np.linspace(high, low, 30)
    y = profiles.at(z, profiles.middle - profiles.depth) - 8
    half = np.interp(np.linspace(0, 1, 30), [0, 0.12, 0.28, 0.34, 0.8, 0.9, 1], [17, 25, 16, 14, 19, 12, 5])
    thick = np.interp(np.linspace(0, 1, 30), [0, 0.9, 1], [6.0, 5.0, 2.5])
    # its width over its thickness changes on the way down, so rods of its thickness lie side by side
    rods = []
    for share in np.linspace(-1, 1, 7):
        points = np.stack([share * (half - thick), y + 2.5 * share**2, z], 1)
        rods.append(path(points, thick * (1 - 0.25 * abs(share))))
    return join(rods)


def _shoulder_girdle(p: Patient, profiles: Profiles) -> tuple[Tubes, Array]:
    """Clavicles, the scapulae's edges and the arms as tubes; the scapulae's blades as (n, 3) points."""
    tubes, blades = [], []
    lift = 0 if p.arms_down else 12
    for side in (-1, 1):
        joint = shoulder_joint(p, side)
        front = float(profiles.at(58 * p.length, profiles.middle - profiles.depth)) - 8
        acromion = joint + np.array([-side * 8, 4, 27])
        clavicle = [
            (side * 21, front, 60 * p.length),
            (side * 52, front - 6, 68 * p.length + 0.3 * lift),
            (side * 0.78 * p.width, 0.35 * front, 84 * p.length + 0.7 * lift),
            acromion,
        ]
        tubes.append(path(np.array(clavicle), [8, 5.5, 5.5, 6.5], 24))
        tilt = 0.0 if p.arms_down else 22.0
        top = _on_back(profiles, 33, 66 * p.length, side)
        tip = _on_back(profiles, 46 + tilt, -52 * p.length + lift, side)
        socket = joint + np.array([-side * 24, 6, -4])
        t = np.linspace(0, 1, 12)
        medial = np.stack(
            [
                _on_back(profiles, 33 + (13 + tilt) * s**1.5, z, side)
                for s, z in zip(t, np.linspace(top[2], tip[2], 12), strict=True)
            ]
        )
        lateral = np.linspace(socket, tip, 12) + np.outer(np.sin(np.pi * t), (side * 4, 6, 0))
        tubes += [path(lateral, np.linspace(5, 3, 12)), path(medial, 2.6), path(np.stack([top, socket]), 2.8)]
        ridge = [
            medial[3],
            0.5 * (medial[3] + acromion) + (0, 16, 0),
            acromion + np.array([0, 6, 0]),
            acromion,
        ]
        tubes.append(path(np.array(ridge), [2.5, 4, 6, 7], 14))
        across = np.linspace(0, 1, 60)[None, :, None]
        down = np.linspace(0, 11, 90)
        rows = [
            np.stack([np.interp(down, range(12), edge[:, k]) for k in range(3)], 1)
            for edge in (medial, lateral)
        ]
        blades.append((rows[0][:, None] * (1 - across) + rows[1][:, None] * across).reshape(-1, 3))
        shaft = arm_paths(p)[side]
        way = np.concatenate([shaft.start[:1], shaft.end])
        tubes.append(path(way, [15, *[10.5] * (len(way) - 1)], 24))
        tubes.append(path(np.stack([joint, joint + np.array([side * 1.0, 0, 1])]), 22))
    return join(tubes), np.concatenate(blades)


def _on_back(profiles: Profiles, angle_deg: float, z: float, side: int) -> Array:
    """(3,) over the ribs of the back; the cage's narrow top is passed by, as the blade does."""
    point = profiles.cage_point(np.radians([angle_deg]), np.array([min(z, 28.0)]), 17.0, side)[0]
    return np.array([point[0], point[1] - 0.15 * max(z - 28, 0), z])


def draw_bones(grid: Grid, hu: Array, p: Patient, profiles: Profiles, rng: np.random.Generator) -> None:
    """Everything but the spine's bodies, into the whole scan's HU."""
    ribs, cartilages = rib_tubes(p, profiles)
    _bone(grid, hu, _processes(p, profiles), 1.3, 240.0)
    deposit(grid, cartilages).into(hu, 95.0)
    if p.bone_hu < 160:  # the cartilages of the old are speckled with lime
        part = rng.random(len(cartilages.start)) < 0.4
        c = cartilages.scaled(0.6)
        specks = Tubes(c.start[part], c.end[part], c.start_radius[part], c.end_radius[part])
        deposit(grid, specks).into(hu, 330.0)
    _bone(grid, hu, ribs, 1.1, p.bone_hu + 40)
    _bone(grid, hu, _sternum(p, profiles), 1.2, p.bone_hu - 20, cortex=480)
    girdle, blades = _shoulder_girdle(p, profiles)
    blade_volume = np.full(len(blades), 2.6 * 0.5 * 110 * 120 / len(blades) * 2)
    splat(grid, blades, blade_volume).into(hu, 620.0)
    _bone(grid, hu, girdle, 1.6, 190.0)


def _bone(
    grid: Grid, hu: Array, tubes: Tubes, shell_mm: float, marrow_hu: float, cortex: float = CORTEX
) -> None:
    deposit(grid, tubes).into(hu, cortex)
    deposit(grid, tubes.scaled(1.0, shell_mm)).into(hu, marrow_hu)


def spine_hollow(region: Region, profiles: Profiles) -> Array:
    """Distance to what the spine and the tissue beside it take from the lungs."""
    wide = np.interp(profiles.z, [-300, -170, 90], [31, 27, 21])
    girth, x, y = profiles.along(region.z, wide, profiles.spine_x, profiles.spine_y + 15)
    return superellipse(region.x - x, region.y - y, girth, np.float32(1.35) * girth)
