"""Public data sets as they come: which files make a case, by the layout of their folder."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from clickvol.datasets.msd import MsdIndex, msd_case_id, read_msd_index
from clickvol.datasets.prepared import CaseModality, RejectedCase
from clickvol.datasets.published import published_tumour_label, read_published
from clickvol.errors import ConfigError
from clickvol.io.formats import READABLE_SUFFIXES

SourceKind = Literal["msd", "kits", "lits", "folder"]

_KITS_LABELS = ("segmentation.nii.gz", "aggregated_MAND_seg.nii.gz")
_LITS_FILE = re.compile(r"(volume|segmentation)-(\d+)\.nii(\.gz)?")
_IMAGE_FOLDERS = ("images", "imagesTr")
_LABEL_FOLDERS = ("labels", "labelsTr")

# nnU-Net's raw data: the first channel of an image ends so, its label does not.
_FIRST_CHANNEL = "_0000"

# A single file of this kind is a Segmentation or an RT Structure Set; a scan is a folder of them.
_DICOM_MASK_SUFFIX = ".dcm"


@dataclass(frozen=True, slots=True)
class SourceCase:
    """A scan and its label, not opened yet.

    Attributes:
        case_id: unique in the data set.
        image: a file, or a folder with a DICOM series.
        label: the same, on the grid of the image; or a DICOM Segmentation or RT Structure Set.
    """

    case_id: str
    image: Path
    label: Path


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in the folder of a data set.

    Attributes:
        name: of the data set.
        cases: pairs, in the order of their ids or of the index.
        rejected: what lacks its partner.
        modality: where the data set says it or is known; None for a look at the values.
        tumour_label: where it is known; None for every value above 0.
        notes: what a user should know, one sentence each.
    """

    name: str
    cases: tuple[SourceCase, ...]
    rejected: tuple[RejectedCase, ...] = ()
    modality: CaseModality | None = None
    tumour_label: int | None = None
    notes: tuple[str, ...] = ()


def list_source(kind: SourceKind, folder: Path, *, volume_index: int | None = None) -> Listing:
    """List the cases of a data set.

    Args:
        kind: its layout.
        folder: where it is.
        volume_index: which volume of 4D images is meant, for its modality.

    Raises:
        ConfigError: when the folder has another layout or no case.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give the folder of the data set")
    if kind == "msd":
        listing = _list_msd(folder, volume_index or 0)
    elif kind == "kits":
        listing = _list_kits(folder)
    elif kind == "lits":
        listing = _list_lits(folder)
    else:
        listing = _list_folder(folder)
    return _without_doubles(listing)


def _list_msd(folder: Path, channel: int) -> Listing:
    index = read_msd_index(folder)
    cases, rejected = [], []
    for image_name, label_name in index.pairs:
        image, label = folder / image_name, folder / label_name
        case = SourceCase(msd_case_id(image), image, label)
        missing = [path for path in (image, label) if not path.exists()]
        if missing:
            reason = f"{missing[0]} is missing, but dataset.json names it"
            rejected.append(RejectedCase(id=case.case_id, reason=reason))
        else:
            cases.append(case)
    word = index.channels[channel].upper() if channel < len(index.channels) else ""
    modality: CaseModality | None = "CT" if word == "CT" else "MR" if word[:2] == "MR" else None
    known = published_tumour_label(folder.resolve().name)
    return Listing(
        name=index.name or folder.resolve().name,
        cases=tuple(cases),
        rejected=tuple(rejected),
        modality=modality,
        tumour_label=known,
        notes=_several_labels(index) if known is None else (),
    )


def _several_labels(index: MsdIndex) -> tuple[str, ...]:
    if len(index.labels) < 2:
        return ()
    names = ", ".join(f"{value} {name}" for value, name in sorted(index.labels.items()))
    return (f"The labels hold {names}; without --label all of them are the object.",)


def _list_kits(folder: Path) -> Listing:
    cases, rejected = [], []
    for case_folder in sorted(folder.glob("case_*")):
        image = case_folder / "imaging.nii.gz"
        labels = [case_folder / name for name in _KITS_LABELS if (case_folder / name).is_file()]
        if image.is_file() and labels:
            cases.append(SourceCase(case_folder.name, image, labels[0]))
        elif case_folder.is_dir():
            what = f"{image} is missing" if labels else f"none of {', '.join(_KITS_LABELS)} is there"
            rejected.append(RejectedCase(id=case_folder.name, reason=what))
    if not cases and not rejected:
        raise ConfigError(
            f"{folder} has no folder like case_00000 with imaging.nii.gz; give the folder above them"
        )
    return Listing(
        name=folder.resolve().name,
        cases=tuple(cases),
        rejected=tuple(rejected),
        modality="CT",
        tumour_label=read_published("kits").tumour_label,
    )


def _list_lits(folder: Path) -> Listing:
    images: dict[str, list[Path]] = {}
    labels: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.nii*")):
        found = _LITS_FILE.fullmatch(path.name)
        if found is not None and path.is_file():
            files = images if found[1] == "volume" else labels
            files.setdefault(f"volume-{found[2]}", []).append(path)
    if not images and not labels:
        raise ConfigError(
            f"{folder} has no file like volume-0.nii or segmentation-0.nii; give the folder above them"
        )
    cases, rejected = _pair(images, labels)
    return Listing(
        name=folder.resolve().name,
        cases=tuple(cases),
        rejected=tuple(rejected),
        modality="CT",
        tumour_label=read_published("lits").tumour_label,
    )


def _list_folder(folder: Path) -> Listing:
    image_folder, label_folder = (
        next((folder / name for name in names if (folder / name).is_dir()), None)
        for names in (_IMAGE_FOLDERS, _LABEL_FOLDERS)
    )
    if image_folder is None or label_folder is None:
        raise ConfigError(f"{folder} has no folders images and labels (or imagesTr and labelsTr); make them")
    labels: dict[str, list[Path]] = {}
    for stem, path in _scans(label_folder, (*READABLE_SUFFIXES, _DICOM_MASK_SUFFIX)):
        labels.setdefault(stem, []).append(path)
    images: dict[str, list[Path]] = {}
    for stem, path in _scans(image_folder, READABLE_SUFFIXES):
        case_id = stem if stem in labels else stem.removesuffix(_FIRST_CHANNEL)
        images.setdefault(case_id, []).append(path)
    cases, rejected = _pair(images, labels)
    return Listing(name=folder.resolve().name, cases=tuple(cases), rejected=tuple(rejected))


def _scans(folder: Path, suffixes: tuple[str, ...]) -> Iterable[tuple[str, Path]]:
    """Yield stem and path of every file with one of the suffixes and of every folder, sorted by name."""
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        suffix = next((s for s in suffixes if name.endswith(s)), None)
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield path.name, path
        elif suffix is not None:
            yield path.name[: -len(suffix)], path


def _pair(
    images: dict[str, list[Path]], labels: dict[str, list[Path]]
) -> tuple[list[SourceCase], list[RejectedCase]]:
    """Pair what has one id, in the order of the numbers at their ends."""
    cases, rejected = [], []
    for case_id in sorted(images.keys() | labels.keys(), key=_natural):
        image, label = images.get(case_id, []), labels.get(case_id, [])
        twice = image if len(image) > 1 else label
        if not label:
            rejected.append(RejectedCase(id=case_id, reason=f"{image[0]} has no label"))
        elif not image:
            rejected.append(RejectedCase(id=case_id, reason=f"{label[0]} has no image"))
        elif len(twice) > 1:
            reason = f"{twice[0]} and {twice[1]} have one name; keep one of them"
            rejected.append(RejectedCase(id=case_id, reason=reason))
        else:
            cases.append(SourceCase(case_id, image[0], label[0]))
    return cases, rejected


def _natural(case_id: str) -> tuple[str, int, str]:
    head = case_id.rstrip("0123456789")
    return (head, int(case_id[len(head) :] or -1), case_id)


def _without_doubles(listing: Listing) -> Listing:
    """Reject every further case of one name, and refuse a folder without any."""
    seen: dict[str, SourceCase] = {}
    rejected = list(listing.rejected)
    for case in listing.cases:
        if case.case_id in seen:
            reason = f"{case.image} is the second case of this name"
            rejected.append(RejectedCase(id=case.case_id, reason=reason))
        else:
            seen[case.case_id] = case
    if not seen and not rejected:
        raise ConfigError(f"{listing.name} holds no case; give a folder with images and labels")
    return replace(listing, cases=tuple(seen.values()), rejected=tuple(rejected))
