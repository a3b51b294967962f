"""Pictures with masks, from folders as they come to a prepared set: checked, split by groups, kept as PNG.

The folder that is written holds `pictures.json` (the manifest), `splits.json`, and in `cases/` two files per
picture. It may hold several data sets, each with its name. Nothing outside is needed to use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.datasets.preparation import content_hash, copies_together, opened_set, prepare_all, write_set
from clickvol.datasets.prepared import (
    MANIFEST_NAME,
    PICTURES_NAME,
    CaseFile,
    CaseSet,
    PreparedSet,
    RejectedCase,
    SourceFile,
    StoredCase,
    file_sha256,
    file_state,
    read_manifest,
    read_prepared_set,
)
from clickvol.datasets.sources import CaseFiles, pair
from clickvol.datasets.splits import (
    PART_NAMES,
    Split,
    check_splits,
    make_split,
    read_groups,
    read_splits,
)
from clickvol.errors import ConfigError, UnreadableVolumeError
from clickvol.io.pictures import (
    Picture,
    Pixels,
    is_picture,
    read_mask_values,
    read_picture,
    write_mask_picture,
    write_picture,
)
from clickvol.parallel.rows import check_workers
from clickvol.version import __version__

# What masks are called beside their pictures: x.jpg and x_mask.png.
_MASK_ENDINGS = ("_segmentation", "_mask", "_seg", "_label", "_gt")

# A mask whose edges are soft, or that was packed as JPEG, is the object where it is above this (published).
_SOFT_THRESHOLD = 127

# Soft edges: many values between black and white on few pixels. Chosen so that masks of classes, which have few
# values or values without white, are never taken for them.
_BETWEEN = (32, 223)
_LEAST_SOFT_VALUES = 8
_MOST_SOFT_SHARE = 0.2

# Dark borders, as published: pixels above the first are light; lines with more of them than the second stay.
_DARK = 20
_LEAST_LIGHT = 10


class PictureCase(StoredCase):
    """One picture with its mask.

    Attributes:
        image: .png, as it came but for transparency and the camera's turns.
        label: .png, 255 in the object and 0 outside it.
        tumour_label, has_organ: none: the label has been read, and nothing else is labelled.
    """

    data_set: str
    shape_hw: tuple[int, int]
    object_pixels: int
    modality: Literal["picture"] = "picture"
    tumour_label: None = None
    has_organ: Literal[False] = False

    def read(self) -> tuple[Pixels, NDArray[np.bool_]]:
        """Return the picture, (H, W) or (H, W, 3), and its mask (H, W); ConfigError as `checked_path`."""
        pixels = read_picture(self.checked_path(self.image))
        return pixels, np.asarray(read_mask_values(self.checked_path(self.label)) > 0)

    def read_native(self) -> tuple[Picture, NDArray[np.uint8]]:
        """Return both as volumes of one slice; the mask is (1, H, W), 0 or 1."""
        pixels, mask = self.read()
        return Picture.of(pixels, str(self.path_of(self.image))), mask[None].astype(np.uint8)


class PictureSet(CaseSet[PictureCase]):
    """The manifest of prepared pictures."""

    def data_sets(self) -> tuple[str, ...]:
        """Return the names of the data sets, in order."""
        return tuple(dict.fromkeys(case.data_set for case in self.cases))


@dataclass(frozen=True, slots=True)
class PictureFolders:
    """A data set as it comes: a folder of pictures, one of masks with the same names, and what it is called."""

    name: str
    images: Path
    masks: Path


@dataclass(frozen=True, kw_only=True)
class PicturePlan:
    """What to prepare and how.

    Attributes:
        object_value: value of the object in the masks; "all" for every value above 0; None where every mask
            has one value, or soft edges.
        groups: CSV with the columns case and group; None for every picture by itself.
        splits: file in nnU-Net's form; None to draw a split, for each data set.
        crop_dark: cut dark borders off, as the released ProMISe-2D does.
        force: replace a prepared set of other names.
    """

    sources: tuple[PictureFolders, ...]
    destination: Path
    object_value: int | Literal["all"] | None = None
    groups: Path | None = None
    splits: Path | None = None
    seed: int = 0
    crop_dark: bool = False
    workers: int = 1
    force: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers, None)
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ConfigError(f"the data sets are called {', '.join(names)}; give each a --name of its own")
        inputs = {path.resolve() for source in self.sources for path in (source.images, source.masks)}
        if self.destination.resolve() in inputs:
            raise ConfigError(f"{self.destination} holds the pictures themselves; choose another folder")


Report = Callable[[int, int, PictureCase | RejectedCase], None]
"""Called with the number of pictures that are done, the number of all, and the last one."""


def prepare_pictures(plan: PicturePlan, report: Report = lambda *_: None) -> PictureSet:
    """Prepare data sets of pictures; what cannot be used is named, and the rest goes on.

    ConfigError for folders, files or settings that cannot be used, or when no picture can; OutputError when the
    destination cannot be written.
    """
    files, rejected, set_of = _listed(plan.sources)
    folds = None if plan.splits is None else read_splits(plan.splits)
    ids = [file.case_id for file in files]
    group_of = {i: i for i in ids} if plan.groups is None else read_groups(plan.groups, ids)
    if folds is not None and plan.splits is not None:
        check_splits(folds, {case.case_id: case.case_id for case in rejected} | group_of, plan.splits)
    with opened_set(plan.destination) as folder:
        _refuse_other_set(plan)
        (plan.destination / PICTURES_NAME).unlink(missing_ok=True)
        work = partial(_prepare_picture, folder=folder, plan=plan)
        made, rejected = prepare_all(work, files, rejected, report, plan.workers)
        known = [(c, {"group": group_of[c.case_id], "data_set": set_of[c.case_id]}) for c in made]
        manifest = _manifest(plan, [case.model_copy(update=said) for case, said in known], rejected, folds)
        write_set(manifest, plan.destination / PICTURES_NAME)
    return manifest


def is_picture_set(folder: Path) -> bool:
    """Tell whether a folder holds the manifest of prepared pictures."""
    return (folder / PICTURES_NAME).is_file()


def read_data_set(folder: Path) -> PreparedSet | PictureSet:
    """Read the manifest of scans or pictures; ConfigError when there is none, or it is damaged or older."""
    if is_picture_set(folder):
        return read_manifest(folder / PICTURES_NAME, PictureSet)
    return read_prepared_set(folder)


def read_pictures(
    folder: Path, part: str, fold: int, *, only: Sequence[str] = (), excluded: tuple[str, ...] = ()
) -> list[PictureCase]:
    """Return the pictures of a part of a prepared set; ConfigError where nothing is left.

    Args:
        folder: of `clickvol data prepare pictures`.
        part: "train", "val", "test" or "all".
        fold: which split.
        only: data sets of the folder; all of them where none is named.
        excluded: cases whose id ends with "_" and one of these are left out.
    """
    known = read_data_set(folder)
    if not isinstance(known, PictureSet):
        raise ConfigError(f"{folder} holds scans, not pictures; give their modality, CT or MR")
    unknown = sorted(set(only) - set(known.data_sets()))
    if unknown:
        raise ConfigError(f"{folder} has no data set {unknown[0]!r}; it has {', '.join(known.data_sets())}")
    cases = [
        case
        for case in known.part(part, fold)
        if (not only or case.data_set in only) and not case.belongs_to(excluded)
    ]
    if not cases:
        raise ConfigError(f"{folder} has no picture left in {part!r}; change the splits or what is left out")
    return cases


def _refuse_other_set(plan: PicturePlan) -> None:
    there = plan.destination
    if plan.force:
        (there / MANIFEST_NAME).unlink(missing_ok=True)
        return
    names = tuple(source.name for source in plan.sources)
    if (there / MANIFEST_NAME).is_file():
        raise ConfigError(f"{there} holds prepared scans; choose another folder, or --force to replace them")
    if is_picture_set(there) and read_manifest(there / PICTURES_NAME, PictureSet).name != "+".join(names):
        raise ConfigError(f"{there} holds other prepared pictures; choose another folder, or --force")


def _listed(
    sources: Sequence[PictureFolders],
) -> tuple[list[CaseFiles], list[RejectedCase], dict[str, str]]:
    """Pair pictures and masks by their names; the last are the data sets of the pairs by id."""
    files: list[CaseFiles] = []
    rejected: list[RejectedCase] = []
    set_of: dict[str, str] = {}
    for source in sources:
        prefix = f"{source.name}-" if len(sources) > 1 else ""
        images = {f"{prefix}{stem}": paths for stem, paths in _by_stem(source.images).items()}
        masks: dict[str, list[Path]] = {}
        for stem, paths in _by_stem(source.masks).items():
            ending = next((e for e in _MASK_ENDINGS if stem.lower().endswith(e)), "")
            plain = stem if f"{prefix}{stem}" in images else stem[: len(stem) - len(ending)]
            masks.setdefault(f"{prefix}{plain}", []).extend(paths)
        cases, alone = pair(images, masks)
        files += cases
        rejected += [RejectedCase(case_id=case, reason=why) for case, why in alone.items()]
        set_of |= {case.case_id: source.name for case in cases}
    if not files and not rejected:
        raise ConfigError(f"{sources[0].images} and {sources[0].masks} hold no PNG, JPEG or TIFF pictures")
    return files, rejected, set_of


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give one of pictures and one of masks")
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if is_picture(path) and not path.name.startswith("."):
            by_stem.setdefault(path.stem, []).append(path)
    return by_stem


def _prepare_picture(file: CaseFiles, folder: Path, plan: PicturePlan) -> PictureCase | RejectedCase:
    """Check a picture and its mask and keep both; or say why they cannot be used."""
    try:
        pixels, values = read_picture(file.image), read_mask_values(file.label)
        if values.shape != pixels.shape[:2]:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (values.shape, pixels.shape)]
            raise ConfigError(f"{file.label} has {sizes[0]} pixels, its picture {sizes[1]}; they must agree")
        mask = object_of(values, plan.object_value, file.label)
    except (UnreadableVolumeError, ConfigError) as error:
        return RejectedCase(case_id=file.case_id, reason=" ".join(str(error).split()))
    if plan.crop_dark:
        lit = _light_part(pixels)
        pixels, mask = pixels[lit], mask[lit]
        if not mask.any():
            return RejectedCase(case_id=file.case_id, reason=f"{file.label} has its object in the dark border")
    image, label = (folder / f"{file.case_id}.{kind}.png" for kind in ("image", "label"))
    write_picture(pixels.copy(), image)
    write_mask_picture(mask, label)
    return PictureCase(
        folder=folder.parent,
        case_id=file.case_id,
        group=file.case_id,
        data_set="",
        source_image=SourceFile(path=file.image.resolve(), bytes=file_state(file.image)[0]),
        source_label=SourceFile(path=file.label.resolve(), bytes=file_state(file.label)[0]),
        image=CaseFile(name=image.name, sha256=file_sha256(image)),
        label=CaseFile(name=label.name, sha256=file_sha256(label)),
        shape_hw=mask.shape,
        object_pixels=int(mask.sum()),
    )


def object_of(values: Pixels, wanted: int | Literal["all"] | None, source: Path) -> NDArray[np.bool_]:
    """Return where the object is in the values (H, W) of a mask; ConfigError for none, or where none is said.

    `wanted` is its value, or "all" for every one above 0; None for the only one, or where the mask is more than
    half white when it has soft edges or was packed as JPEG.
    """
    levels = np.unique(values[values > 0]).astype(np.int64)
    held = ", ".join(f"{value}" for value in levels[:9]) + (", ..." if len(levels) > 9 else "") or "only 0"
    is_lossy = source.suffix.lower() in (".jpg", ".jpeg")
    if wanted is None and (is_lossy or _has_soft_edges(values, levels)):
        mask = values > _SOFT_THRESHOLD
    elif isinstance(wanted, int):
        mask = values == wanted
    elif wanted == "all" or len(levels) < 2:
        mask = values > 0
    else:
        raise ConfigError(
            f"{source} holds the values {held}; say which is the object with --label N, or --label all"
        )
    if not mask.any():
        asked = f"pixel of value {wanted}" if isinstance(wanted, int) else "object"
        raise ConfigError(f"{source} has no {asked}; its values are {held}")
    return np.asarray(mask)


def _has_soft_edges(values: Pixels, levels: NDArray[np.int64]) -> bool:
    low, high = _BETWEEN
    between = (levels >= low) & (levels <= high)
    if len(levels) == 0 or levels[-1] <= high or levels[-1] > 255 or between.sum() < _LEAST_SOFT_VALUES:
        return False
    share = ((values >= low) & (values <= high)).sum() / (values >= low).sum()
    return bool(share < _MOST_SOFT_SHARE)


def _light_part(pixels: Pixels) -> tuple[slice, slice]:
    """Return rows and columns within the dark borders; all of them where nothing is light."""
    grey = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    light = grey > _DARK * (257 if grey.dtype == np.uint16 else 1)
    lines = [np.flatnonzero(light.sum(axis=axis) > _LEAST_LIGHT) for axis in (1, 0)]
    if not all(len(line) for line in lines):
        return slice(None), slice(None)
    rows, columns = (slice(int(line[0]), int(line[-1]) + 1) for line in lines)
    return rows, columns


def _manifest(
    plan: PicturePlan,
    cases: Sequence[PictureCase],
    rejected: Sequence[RejectedCase],
    folds: tuple[Split, ...] | None,
) -> PictureSet:
    together, copies = copies_together(cases)
    if folds is None:
        splits: tuple[Split, ...] = (_drawn_split(together, plan.seed),)
    else:
        group_of = {case.case_id: case.group for case in together}
        splits = tuple(fold.only(set(group_of)) for fold in folds)
        check_splits(splits, group_of, plan.splits or plan.destination)
    seen_of_case = {"case_id", "group", "data_set", "image", "label"}
    facts = [case.model_dump(mode="json", include=seen_of_case) for case in together]
    seen = [facts, [fold.model_dump(mode="json") for fold in splits]]
    return PictureSet(
        name="+".join(source.name for source in plan.sources),
        kind="pictures",
        seed=plan.seed,
        splits=splits,
        cases=tuple(together),
        rejected=tuple(rejected),
        notes=tuple(copies),
        clickvol_version=__version__,
        content_hash=content_hash(seen),
    )


def _drawn_split(cases: Sequence[PictureCase], seed: int) -> Split:
    """Draw the parts of every data set; a group in several of them is in the part that it is in the first."""
    part_of: dict[str, str] = {}
    for name in dict.fromkeys(case.data_set for case in cases):
        groups = {case.case_id: case.group for case in cases if case.data_set == name}
        drawn = make_split(groups, seed)
        for part in PART_NAMES:
            for case_id in drawn.part(part):
                part_of.setdefault(groups[case_id], part)
    return Split(**{part: tuple(c.case_id for c in cases if part_of[c.group] == part) for part in PART_NAMES})
