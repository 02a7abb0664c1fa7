"""The messes of a hospital's folders, a function each: it writes one patient and says what becomes of it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from xr2ct.cohorts.catalogue import Rule
from xr2ct.cohorts.coverage import SAMPLED_SLICES

from .chests import SLICE_MM, Chest, with_abdomen
from .files import (
    Series,
    cut,
    damage,
    numbered,
    without,
    write_dicomdir,
    write_picture,
    write_radiograph,
    write_series,
)
from .truth import Truth

PREFERRED = "another series is preferred"


@dataclass
class Patient:
    """One patient to be written."""

    root: Path
    """Of the cohort."""
    cohort: str
    rule: Rule
    id: str
    chest: Chest
    number: int
    """Of the chest."""
    root_uid: str
    seed: int
    mess: str
    _uids: int = field(default=0, init=False)

    @property
    def folder(self) -> Path:
        return self.root / self.id

    def series(self, study: int = 1, chest: Chest | None = None, **values: Any) -> Series:
        """The next series: its UID comes after those of the series before."""
        self._uids += 1
        chest = chest or self.chest
        uid = f"{self.root_uid}.{study}.{10 + self._uids}"
        return replace(Series(self.id, f"{self.root_uid}.{study}", uid, chest.hu, chest.spacing_mm), **values)

    def write(self, series: Series, name: str = "", **how: Any) -> list[Path]:
        """Into PATIENT/STUDY/SERIES, as archives lay them."""
        return write_series(
            self.folder / f"study-{series.study[-1]}" / (name or series.uid[-2:]), series, **how
        )

    def truth(self, series: Series | None, plan: str, reason: str = "", **more: Any) -> Truth:
        """A line; what the plan takes is kept, and holds the patient's chest, unless told otherwise."""
        kept = {"ingest": "kept", "chest": self.number} if plan == "yes" else {}
        line = Truth(self.cohort, self.id, series.uid if series else "", self.mess, plan, reason)
        return replace(line, **{**kept, **more})


Mess = Callable[[Patient], Iterator[Truth]]


def plain(p: Patient) -> Iterator[Truth]:
    one = p.series()
    p.write(one)
    yield p.truth(one, "yes", "only one")


def several_studies(p: Patient) -> Iterator[Truth]:
    """The earlier with two slices more: whatever the rule prefers, it is the earlier."""
    first = p.series(1, date="20200110")
    later = p.series(2, date="20200615")
    later = replace(later, hu=later.hu[2:])
    p.write(first)
    p.write(later)
    yield p.truth(first, "yes")
    if p.rule.scans == "study":
        yield p.truth(later, "yes")
    else:
        yield p.truth(later, "spare", PREFERRED)


def several_kernels(p: Patient) -> Iterator[Truth]:
    """Alike but for the kernel, of which the one whose UID comes first is the soft one."""
    soft, sharp = p.series(kernel="B30f"), p.series(kernel="B70f")
    sharper = sharp.hu.astype(int) + np.random.default_rng(p.seed).integers(-60, 61, sharp.hu.shape)
    p.write(soft)
    p.write(replace(sharp, hu=sharper.clip(-1024, 3071).astype(np.int16)))
    yield p.truth(soft, "yes")
    yield p.truth(sharp, "spare", "softer kernel" if "soft" in p.rule.prefer else f"{PREFERRED}: alike")


def thick_and_thin(p: Patient) -> Iterator[Truth]:
    thin, thick, slab = p.series(), p.series(thickness_mm=5.0), p.series(thickness_mm=8.0)
    thick = replace(thick, hu=thick.hu[::2], spacing_mm=(2 * SLICE_MM, *thick.spacing_mm[1:]))
    slab = replace(slab, hu=slab.hu[::3], spacing_mm=(3 * SLICE_MM, *slab.spacing_mm[1:]))
    for one in (thick, slab, thin):
        p.write(one)
    yield p.truth(thin, "yes")
    if p.rule.thickness_mm[1] >= 5.0:
        yield p.truth(thick, "spare", PREFERRED)
    else:
        yield p.truth(thick, "no", "5.0 mm slices, at most")
    yield p.truth(slab, "no", "8.0 mm slices, at most")


def portable_scan(p: Patient) -> Iterator[Truth]:
    """8 mm slices are all there is of him."""
    slab = p.series(thickness_mm=8.0)
    slab = replace(slab, hu=slab.hu[::3], spacing_mm=(8.0, *slab.spacing_mm[1:]))
    p.write(slab)
    yield p.truth(slab, "no", "8.0 mm slices, at most")
    yield p.truth(None, "refused", "8.0 mm slices, at most")


def contrast_and_none(p: Patient) -> Iterator[Truth]:
    """Alike but for the agent; where no rule asks, the first UID."""
    enhanced, native = p.series(contrast=True), p.series()
    p.write(enhanced)
    p.write(native)
    yield p.truth(enhanced, "yes")
    yield p.truth(native, "spare", "contrast" if "contrast" in p.rule.prefer else f"{PREFERRED}: alike")


def pictures_beside(p: Patient) -> Iterator[Truth]:
    """A localizer among the slices' own series, and pages and captures of their own."""
    one = p.series()
    p.write(one)
    yield p.truth(one, "yes")
    for kind in ("localizer", "dose page", "screen save", "secondary capture"):
        page = p.series()
        write_picture(p.folder / "study-1" / "other" / f"{kind[:3]}.dcm", page, kind)
        yield p.truth(page, "no", kind)
    write_picture(p.folder / "study-1" / one.uid[-2:] / "1-000.dcm", replace(one, uid=one.uid), "localizer")


def chest_abdomen_pelvis(p: Patient) -> Iterator[Truth]:
    one = p.series(chest=with_abdomen(p.chest, 350, p.seed))
    p.write(one)
    yield p.truth(one, "yes")


def cut_at_the_feet(p: Patient) -> Iterator[Truth]:
    one = p.series()
    one = replace(one, hu=one.hu[p.chest.widest - 10 :])
    p.write(one)
    yield p.truth(one, "no", "lungs cut")
    yield p.truth(None, "refused", "lungs cut")


def cut_at_the_head(p: Patient) -> Iterator[Truth]:
    """Beside a whole scan, which is taken though the cut one has a UID before it."""
    half, whole = p.series(), p.series()
    half = replace(half, hu=half.hu[: p.chest.widest + 10])
    p.write(half)
    p.write(whole)
    yield p.truth(half, "no", "lungs cut")
    yield p.truth(whole, "yes")


def gantry_tilt(p: Patient) -> Iterator[Truth]:
    turn = np.radians(12)

    def lean(_: int, data: Dataset) -> None:
        data.ImageOrientationPatient = [
            1,
            0,
            0,
            0,
            round(float(np.cos(turn)), 6),
            round(float(-np.sin(turn)), 6),
        ]
        data.GantryDetectorTilt = "12"

    one = p.series(edit=lean)
    p.write(one)
    yield p.truth(one, "no", "tilt")
    yield p.truth(None, "refused", "tilt")


def missing_slices(p: Patient) -> Iterator[Truth]:
    one = p.series(skip=frozenset({40, 41, 60}))
    p.write(one)
    yield p.truth(one, "no", "missing slices: 3")
    yield p.truth(None, "refused", "missing slices")


def copied_series(p: Patient) -> Iterator[Truth]:
    """The same files again in another folder, under other names."""
    one = p.series()
    for number, file in enumerate(p.write(one)):
        target = p.root / "_export 2019 (copy)" / p.id / f"IM{number:05d}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    yield p.truth(one, "yes")


def two_patients_in_a_folder(p: Patient) -> Iterator[Truth]:
    for name in (p.id, f"{p.id}-b"):
        one = replace(p.series(), patient=name)
        write_series(p.folder, one, partial(_prefixed, one.uid[-2:]))
        yield replace(p.truth(one, "yes"), patient=name)


def _prefixed(prefix: str, number: int) -> str:
    return f"{prefix}{numbered(number)}"


def series_over_two_folders(p: Patient) -> Iterator[Truth]:
    one = p.series()
    p.write(one, place=lambda number: f"{'AB'[number % 2]}/{numbered(number)}")
    yield p.truth(one, "yes")


def names_that_say_nothing(p: Patient) -> Iterator[Truth]:
    """No suffix, no order, one folder for a study's all."""
    one = p.series()
    write_series(p.root / f"{p.seed % 10**8:08d}", one, lambda number: f"{(number * 7919) % 1000003:X}")
    yield p.truth(one, "yes")


def truncated_pixels(p: Patient) -> Iterator[Truth]:
    """A file's length tells, so that the plan takes the other series."""
    bad, good = p.series(), p.series()
    good = replace(good, hu=good.hu[2:])
    cut(p.write(bad)[50], 0.6)
    p.write(good)
    yield p.truth(bad, "no", "truncated")
    yield p.truth(good, "yes")


def damaged_pixels(p: Patient) -> Iterator[Truth]:
    """Compressed ones, of a slice that the plan does not look into: the spare takes its place at ingest."""
    bad, good = p.series(rle=True), p.series()
    good = replace(good, hu=good.hu[2:])
    damage(p.write(bad)[_between_samples(len(bad.hu))])
    p.write(good)
    yield p.truth(bad, "yes", ingest="refused", ingest_reason="damaged|cannot be", chest=-1)
    yield p.truth(good, "spare", PREFERRED, ingest="kept", chest=p.number)


def _between_samples(slices: int) -> int:
    """A slice in the middle that lung coverage, which reads `SAMPLED_SLICES` of them, passes over."""
    sampled = np.linspace(0, slices - 1, SAMPLED_SLICES)
    middle = np.arange(slices // 3, slices // 2)
    return int(middle[np.abs(middle[:, None] - sampled).min(1).argmax()])


def truncated_header(p: Patient) -> Iterator[Truth]:
    """A file of which not even the header is whole may be any slice of the series beside it."""
    one = p.series()
    cut(p.write(one)[50], 0.01)
    yield p.truth(one, "no", "header|not readable|not DICOM")
    yield p.truth(one, "refused", "header|not readable|not DICOM")


def bolus_tracking(p: Patient) -> Iterator[Truth]:
    """Ten pictures of one place, before the scan."""

    def stay(number: int, data: Dataset) -> None:
        data.ImagePositionPatient = [-180.0, -150.0, -500.0]
        data.AcquisitionNumber = number + 1

    bolus, one = p.series(contrast=True, edit=stay), p.series(contrast=True)
    bolus = replace(bolus, hu=bolus.hu[p.chest.widest : p.chest.widest + 10])
    p.write(bolus)
    p.write(one)
    yield p.truth(one, "yes")
    yield p.truth(bolus, "no", "slices?, at least")


def reformatted(p: Patient) -> Iterator[Truth]:
    """Coronal and axial reformats beside what was acquired; they have fewer slices."""
    one, axial, coronal = p.series(), p.series(), p.series()
    kind = ("DERIVED", "SECONDARY", "MPR")
    axial = replace(axial, image_type=kind, hu=axial.hu[2:-2])
    dz, dy, dx = coronal.spacing_mm

    def stand(number: int, data: Dataset) -> None:
        data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        data.ImagePositionPatient = [-180.0, round(-150.0 + dy * number, 4), 200.0]

    middle = coronal.hu.shape[1] // 2
    # Head up in each, and written from the last to the first: from the front to the back.
    standing = coronal.hu[::-1, middle - 32 : middle + 32].transpose(1, 0, 2)[::-1]
    coronal = replace(coronal, image_type=kind, hu=standing, spacing_mm=(dy, dz, dx), edit=stand)
    for series in (one, axial, coronal):
        p.write(series)
    yield p.truth(one, "yes")
    yield p.truth(axial, "spare", PREFERRED)
    thick = dy > p.rule.thickness_mm[1] + 0.05
    yield p.truth(coronal, *(("no", "mm slices, at most") if thick else ("spare", PREFERRED)))


def without_patient_id(p: Patient) -> Iterator[Truth]:
    p.write(p.series(edit=without(["PatientID"])))
    yield p.truth(None, "refused", "without PatientID")


def foreign_letters(p: Patient) -> Iterator[Truth]:
    p.id = f"Ñandú^Zoë {p.id} 患者"
    one = p.series()
    p.write(one)
    yield p.truth(one, "yes")


def nifti_beside(p: Patient) -> Iterator[Truth]:
    """A volume file of another patient in the folder of one with DICOM."""
    one, other = p.series(), p.series()
    p.write(one)
    name = f"{p.id}-nifti"
    image = sitk.GetImageFromArray(other.hu)
    image.SetSpacing(other.spacing_mm[::-1])
    sitk.WriteImage(image, str(p.root / f"{name}.nii.gz"))
    yield p.truth(one, "yes")
    yield replace(p.truth(one, "yes"), patient=name, series=name)


def radiographs(p: Patient) -> Iterator[Truth]:
    """A DX, a CR in MONOCHROME1, one with the patient's name in its pixels, and a hand."""
    one = p.series(date="20200110")
    p.write(one)
    yield p.truth(one, "yes")
    days = {"20200113": "3", "20191231": "-10", "20200110": "0"}
    plain_dx = p.series(2, date="20200113")
    write_radiograph(p.folder / "dx" / "a.dcm", plain_dx)
    yield p.truth(plain_dx, "radiograph", ingest="kept", days=days["20200113"])
    inverted = p.series(2, date="20191231")
    write_radiograph(p.folder / "cr" / "b", inverted, modality="CR", photometric="MONOCHROME1")
    yield p.truth(inverted, "radiograph", ingest="kept", days=days["20191231"])
    named = p.series(2, date="20200110")
    write_radiograph(p.folder / "dx" / "c.dcm", named, text=("DOE^JANE 12.03.1964", "St. Mary Hospital"))
    yield p.truth(named, "radiograph", ingest="kept", days=days["20200110"], burned_in="text found")
    hand = p.series(2, date="20200110")
    write_radiograph(p.folder / "dx" / "d.dcm", hand, part="HAND")
    yield p.truth(hand, "radiograph", ingest="refused", ingest_reason="no chest: HAND")


def empty_files(p: Patient) -> Iterator[Truth]:
    """One that calls itself DICOM in a folder of its own; others that say nothing, beside the slices."""
    one = p.series()
    (file, *_) = p.write(one)
    (file.parent / "notes").touch()
    (p.root / f"{p.id}-empty").mkdir()
    (p.root / f"{p.id}-empty" / "1.dcm").touch()
    yield p.truth(one, "yes")
    yield replace(p.truth(None, "refused", "empty file"), patient=f"{p.id}-empty")


def junk(p: Patient) -> Iterator[Truth]:
    """What operating systems, burners and colleagues leave behind."""
    one = p.series()
    (file, *_) = p.write(one)
    (file.parent / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(2000))
    (file.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(500))
    write_dicomdir(p.folder / "DICOMDIR")
    (p.folder / "readme.txt").write_text("Dr. Example's list, do not sort")
    with zipfile.ZipFile(p.folder / "all.zip", "w") as archive:
        archive.write(file, "1.dcm")
    yield p.truth(one, "yes")


def symlink_loop(p: Patient) -> Iterator[Truth]:
    one = p.series()
    p.write(one)
    (p.folder / "study-1" / "again").symlink_to(p.folder)
    (p.folder / "study-1" / "gone").symlink_to("nowhere")
    yield p.truth(one, "yes")


def pixel_padding(p: Patient) -> Iterator[Truth]:
    one = p.series(padding=-2000, intercept=0.0)
    p.write(one)
    yield p.truth(one, "yes")


def odd_rescale(p: Patient) -> Iterator[Truth]:
    """Unsigned, an intercept of −8192 and a slope of 0.5."""
    one = p.series(slope=0.5, intercept=-8192.0, signed=False)
    p.write(one)
    yield p.truth(one, "yes")


MESSES: tuple[Mess, ...] = (
    plain,
    several_studies,
    several_kernels,
    thick_and_thin,
    portable_scan,
    contrast_and_none,
    pictures_beside,
    chest_abdomen_pelvis,
    cut_at_the_feet,
    cut_at_the_head,
    gantry_tilt,
    missing_slices,
    copied_series,
    two_patients_in_a_folder,
    series_over_two_folders,
    names_that_say_nothing,
    truncated_pixels,
    damaged_pixels,
    truncated_header,
    bolus_tracking,
    reformatted,
    without_patient_id,
    foreign_letters,
    nifti_beside,
    radiographs,
    empty_files,
    junk,
    symlink_loop,
    pixel_padding,
    odd_rescale,
)
