"""Public data sets as they come: which files make a case, by the layout of their folder."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clickvol.datasets.prepared import CaseModality, RejectedCase
from clickvol.datasets.published import published_name_of
from clickvol.errors import BadGeometryError, ConfigError, UnreadableVolumeError
from clickvol.io.challenge import read_challenge_label
from clickvol.io.formats import READABLE_SUFFIXES
from clickvol.io.input_path import suffix_of

SourceKind = Literal["msd", "kits", "lits", "folder", "npz"]

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z")
_KITS_FILES = ("segmentation.nii.gz", "aggregated_MAND_seg.nii.gz")
_LITS_FILE = re.compile(r"(volume|segmentation)-(\d+)\.nii(\.gz)?")
_IMAGE_FOLDERS = ("images", "imagesTr")
_LABEL_FOLDERS = ("labels", "labelsTr")

# nnU-Net's raw data: the first channel of an image ends so, its label does not.
_FIRST_CHANNEL = "_0000"

# A single file of this kind is a Segmentation or an RT Structure Set; a scan is a folder of them.
_DICOM_MASK_SUFFIX = ".dcm"


# By the first two letters of what dataset.json says: "CT", "MRI", "PET".
_MODALITY_OF_WORD: dict[str, CaseModality] = {"CT": "CT", "MR": "MR", "PE": "PT", "PT": "PT"}


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """The files of a scan and its label, not opened yet.

    Attributes:
        case_id: unique in the data set.
        label: the same, on the grid of the image; or a DICOM Segmentation or RT Structure Set.
        tumour_label: value of this case's object; None for what the data set says.
        group: what it must share a part with; "" for itself.
    """

    case_id: str
    image: Path
    label: Path
    tumour_label: int | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in the folder of a data set.

    Attributes:
        cases: pairs, in the order of their ids or of the index.
        modality: where the data set says it or is known; None for a look at the values.
        published: name of the published constants of this very data set; None where it is none of those.
    """

    name: str
    cases: tuple[CaseFiles, ...]
    rejected: tuple[RejectedCase, ...] = ()
    modality: CaseModality | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    published: str | None = None

    @property
    def label_names(self) -> str:
        """The values of the labels with their names, for messages."""
        return ", ".join(f"{value} {name}" for value, name in sorted(self.labels.items()))


def list_source(kind: SourceKind, folder: Path, *, volume_index: int | None = None) -> Listing:
    """List the cases of a data set; ConfigError when the folder has another layout or no case.

    `volume_index` is which volume of 4D images is meant, for its modality.
    """
    if folder.is_file() and folder.name.lower().endswith(_ARCHIVES):
        raise ConfigError(f"{folder} is an archive; unpack it and give the folder of the data set")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give the folder of the data set")
    if kind == "msd":
        return _without_doubles(_list_msd(folder, volume_index or 0))
    by_kind = {"kits": _list_kits, "lits": _list_lits, "npz": _list_npz, "folder": _list_folder}
    return _without_doubles(by_kind[kind](folder))


def _listing(folder: Path, cases: list[CaseFiles], rejected: dict[str, str], **known: Any) -> Listing:  # noqa: ANN401
    """Return what lies in a folder, whose name is the set's unless it has another; reasons by case."""
    reasons = tuple(RejectedCase(case_id=case_id, reason=reason) for case_id, reason in rejected.items())
    return Listing(**{"name": folder.resolve().name} | known, cases=tuple(cases), rejected=reasons)


def _list_msd(folder: Path, channel: int) -> Listing:
    index = _read_index(folder)
    try:
        pairs = [(folder / str(p["image"]), folder / str(p["label"])) for p in index["training"]]
    except (TypeError, KeyError) as error:
        raise _not_an_index(folder, error) from error
    cases, rejected = [], {}
    for image, label in pairs:
        case = CaseFiles(image.name.removesuffix(".nii.gz"), image, label)
        missing = [path for path in (image, label) if not path.exists()]
        if missing:
            rejected[case.case_id] = f"{missing[0]} is missing, but dataset.json names it"
        else:
            cases.append(case)
    channels = index.get("modality")
    word = str(channels.get(str(channel), "")).upper() if isinstance(channels, dict) else ""
    name, modality, labels = folder.resolve().name, _MODALITY_OF_WORD.get(word[:2]), _label_names(index)
    known = {"name": str(index.get("name", "")) or name, "published": published_name_of(name)}
    return _listing(folder, cases, rejected, modality=modality, labels=labels, **known)


def _read_index(folder: Path) -> dict[str, Any]:
    """Read the dataset.json of a folder in the Decathlon's or nnU-Net's layout."""
    path = folder / "dataset.json"
    if not path.is_file():
        hint = _hint(folder, "dataset.json") or "give the folder where it is"
        raise ConfigError(f"{folder} is not an MSD folder: dataset.json is missing; {hint}")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _not_an_index(folder, error) from error


def _not_an_index(folder: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{folder / 'dataset.json'} is not the index of an MSD folder, which is "
        f'{{"training": [{{"image": "...", "label": "..."}}, ...]}}: {error!r}'
    )


def _label_names(index: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the values above 0: of {"1": "tumour"} (Decathlon) or {"tumour": 1} (nnU-Net)."""
    labels = index.get("labels")
    names: dict[int, str] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if str(key).isdecimal():
            names[int(key)] = str(value)
        elif isinstance(value, int):
            names[value] = str(key)
    return {value: name for value, name in names.items() if value > 0}


def _hint(folder: Path, *patterns: str) -> str:
    """Return which folder below was meant; "" where none has what was expected."""
    depths = ("*", "*/*")
    below = [p.parent for at in depths for pattern in patterns for p in sorted(folder.glob(f"{at}/{pattern}"))]
    return f"{below[0]} has it, so give that folder" if below else ""


def _list_kits(folder: Path) -> Listing:
    cases, rejected = [], {}
    for case_folder in sorted(folder.glob("case_*")):
        image = case_folder / "imaging.nii.gz"
        labels = [case_folder / name for name in _KITS_FILES if (case_folder / name).is_file()]
        if image.is_file() and labels:
            cases.append(CaseFiles(case_folder.name, image, labels[0]))
        elif case_folder.is_dir():
            missing = f"{image} is missing" if labels else f"none of {', '.join(_KITS_FILES)} is there"
            rejected[case_folder.name] = missing
    if not cases and not rejected:
        hint = _hint(folder, "case_*") or "give the folder above them"
        raise ConfigError(f"{folder} has no folder like case_00000 with imaging.nii.gz; {hint}")
    names = {1: "kidney", 2: "tumour", 3: "cyst"}
    return _listing(folder, cases, rejected, modality="CT", labels=names, published="kits")


def _list_lits(folder: Path) -> Listing:
    images: dict[str, list[Path]] = {}
    labels: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.nii*")):
        match = _LITS_FILE.fullmatch(path.name)
        if match is not None and path.is_file():
            files = images if match[1] == "volume" else labels
            files.setdefault(f"volume-{match[2]}", []).append(path)
    if not images and not labels:
        raise ConfigError(
            f"{folder} has no file like volume-0.nii or segmentation-0.nii; give the folder above them"
        )
    names = {1: "liver", 2: "tumour"}
    return _listing(folder, *pair(images, labels), modality="CT", labels=names, published="lits")


def _list_npz(folder: Path) -> Listing:
    """List every class of every file of the CVPR 2025 challenge; the classes of a file are one group."""
    cases, rejected = [], {}
    for file in sorted(folder.glob("*.npz")):
        try:
            classes = sorted({int(value) for value in np.unique(read_challenge_label(file).array)} - {0})
        except (UnreadableVolumeError, BadGeometryError) as error:
            rejected[file.stem] = str(error)
        else:
            cases += [CaseFiles(f"{file.stem}-class{n}", file, file, n, file.stem) for n in classes]
    # The challenge scales every scan to 0 to 255, so that none is in HU.
    return _listing(folder, cases, rejected, modality="MR")


def _list_folder(folder: Path) -> Listing:
    image_folder, label_folder = (
        next((folder / name for name in names if (folder / name).is_dir()), None)
        for names in (_IMAGE_FOLDERS, _LABEL_FOLDERS)
    )
    if image_folder is None or label_folder is None:
        hint = _hint(folder, *_LABEL_FOLDERS) or "make them"
        raise ConfigError(f"{folder} has no folders images and labels (or imagesTr and labelsTr); {hint}")
    index = _read_index(folder) if (folder / "dataset.json").is_file() else {}
    return replace(
        list_folders(image_folder, label_folder), name=folder.resolve().name, labels=_label_names(index)
    )


def list_folders(image_folder: Path, label_folder: Path) -> Listing:
    """List the scans of one folder with the masks of another that have their names."""
    labels: dict[str, list[Path]] = {}
    for stem, path in _scans(label_folder, (*READABLE_SUFFIXES, _DICOM_MASK_SUFFIX)):
        labels.setdefault(stem, []).append(_mask_in(path) if path.is_dir() else path)
    images: dict[str, list[Path]] = {}
    for stem, path in _scans(image_folder, READABLE_SUFFIXES):
        case_id = stem if stem in labels else stem.removesuffix(_FIRST_CHANNEL)
        images.setdefault(case_id, []).append(path)
    return _listing(image_folder, *pair(images, labels))


def _mask_in(folder: Path) -> Path:
    """Return the one file of a folder, as archives hand out segmentations; the folder where there are more."""
    files = [path for path in folder.iterdir() if path.name.lower().endswith(_DICOM_MASK_SUFFIX)]
    return files[0] if len(files) == 1 else folder


def _scans(folder: Path, suffixes: tuple[str, ...]) -> Iterable[tuple[str, Path]]:
    """Yield stem and path of every file with one of the suffixes and of every folder, sorted by name."""
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path.name, suffixes)
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield path.name, path
        elif suffix is not None:
            yield path.name[: -len(suffix)], path


def pair(
    images: dict[str, list[Path]], labels: dict[str, list[Path]]
) -> tuple[list[CaseFiles], dict[str, str]]:
    """Pair what has one id, in the order of the numbers at their ends; say why others are rejected."""
    cases, rejected = [], {}
    for case_id in sorted(images.keys() | labels.keys(), key=_natural):
        image, label = images.get(case_id, []), labels.get(case_id, [])
        twice = image if len(image) > 1 else label
        if not label:
            rejected[case_id] = f"{image[0]} has no label"
        elif not image:
            rejected[case_id] = f"{label[0]} has no image"
        elif len(twice) > 1:
            rejected[case_id] = f"{twice[0]} and {twice[1]} have one name; keep one of them"
        else:
            cases.append(CaseFiles(case_id, image[0], label[0]))
    return cases, rejected


def _natural(case_id: str) -> tuple[str, int, str]:
    head = case_id.rstrip("0123456789")
    return (head, int(case_id[len(head) :] or -1), case_id)


def _without_doubles(listing: Listing) -> Listing:
    """Reject every further case of one name, and refuse a folder without any."""
    seen: dict[str, CaseFiles] = {}
    rejected = list(listing.rejected)
    for case in listing.cases:
        if case.case_id in seen:
            reason = f"{case.image} is the second case of this name"
            rejected.append(RejectedCase(case_id=case.case_id, reason=reason))
        else:
            seen[case.case_id] = case
    if not seen and not rejected:
        raise ConfigError(f"{listing.name} holds no case; give a folder with images and labels")
    return replace(listing, cases=tuple(seen.values()), rejected=tuple(rejected))
