"""A prepared data set: its manifest, and its cases as arrays.

A folder written by `clickvol data prepare`: `prepared.json` (this manifest), `splits.json` (its splits in
nnU-Net's form), and in `cases/` two plain .npy files per case, which are mapped into memory and not read.
"""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickvol.datasets.fingerprint import IntensityConstants
from clickvol.datasets.organs import check_one_grid
from clickvol.datasets.splits import PART_NAMES, Split
from clickvol.errors import ConfigError, UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import read_volume
from clickvol.io.mask_files import read_label
from clickvol.io.volume import Volume

MANIFEST_NAME = "prepared.json"
SPLITS_NAME = "splits.json"
CASES_NAME = "cases"

CaseModality = Literal["CT", "MR"]

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
_Row = tuple[float, float, float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RejectedCase(_Record):
    """A case that cannot be used.

    Attributes:
        id: of the case.
        reason: one line.
    """

    id: str
    reason: str


class SourceFile(_Record):
    """A file of the data set as it came.

    Attributes:
        path: absolute; a folder for a DICOM series.
        bytes: its size, that of all files for a folder.
    """

    path: Path
    bytes: int


class PreparedCase(_Record):
    """One labelled scan.

    Attributes:
        id: unique in the set.
        group: what must stay in one part, such as the patient; the id where nothing else was said.
        modality: what the scan is treated as.
        image, label: the files it was made from.
        volume_index: which volume of a 4D image was taken; None for 3D.
        tumour_label: value of the object in the native label; None for every value above 0.
        image_file: name in `cases/` of the scan: .npy, (D, H, W), int16 or float32.
        label_file: of the mask: .npy, (D, H, W) uint8, 0 or 1.
        image_sha256, label_sha256: of these two files.
        shape_dhw: of these two arrays.
        affine_ras_mm: of these two arrays, rows of the matrix of a `VolumeGrid`.
        spacing_dhw_mm: of these two arrays.
        native_shape_dhw, native_spacing_dhw_mm: of the files it was made from.
        tumour_ml: volume of the native mask.
    """

    id: str
    group: str
    modality: CaseModality
    image: SourceFile
    label: SourceFile
    volume_index: int | None
    tumour_label: int | None
    image_file: str
    label_file: str
    image_sha256: str
    label_sha256: str
    shape_dhw: Shape
    affine_ras_mm: tuple[_Row, _Row, _Row, _Row]
    spacing_dhw_mm: Triple
    native_shape_dhw: Shape
    native_spacing_dhw_mm: Triple
    tumour_ml: float

    def grid(self) -> VolumeGrid:
        """Return the grid of the cached arrays."""
        return VolumeGrid(self.shape_dhw, np.array(self.affine_ras_mm))


class PreparedSet(_Record):
    """The manifest of a prepared data set.

    Attributes:
        version: of this form.
        name: of the data set.
        kind: layout that it came in.
        constants: name of the published constants that were taken; None for the fingerprint.
        target_spacing_dhw_mm: voxels of the cached arrays; "native" for those of the files.
        seed: of the splits, where they were drawn.
        intensity: clipping and normalisation for each modality of the set.
        splits: the folds.
        cases: every usable case, also those that no fold names.
        rejected: the others.
        notes: what a user should know, one sentence each.
        clickvol_version: what wrote it.
        content_hash: SHA-256 over the cached arrays, splits and settings, none of the places of files.
    """

    version: Literal[1] = 1
    name: str
    kind: str
    constants: str | None
    target_spacing_dhw_mm: Triple | Literal["native"]
    seed: int
    intensity: dict[CaseModality, IntensityConstants]
    splits: tuple[Split, ...] = Field(min_length=1)
    cases: tuple[PreparedCase, ...] = Field(min_length=1)
    rejected: tuple[RejectedCase, ...]
    notes: tuple[str, ...]
    clickvol_version: str
    content_hash: str

    @model_validator(mode="after")
    def _names_its_cases(self) -> Self:
        known = {case.id for case in self.cases}
        if len(known) < len(self.cases):
            raise ValueError("two cases have one id")
        for fold in self.splits:
            for name in PART_NAMES:
                unknown = set(fold.part(name)) - known
                if unknown:
                    raise ValueError(f"the splits name {min(unknown)!r}, which is no case")
        return self

    def part(self, name: str, fold: int = 0) -> list[PreparedCase]:
        """Return the cases of a part, in the order of `cases`; empty where a fold has none for it.

        Args:
            name: "train", "val", "test", or "all" for every case.
            fold: number of the fold, from 0.

        Raises:
            ConfigError: for another name, or a fold that is not there.
        """
        if name == "all":
            return list(self.cases)
        if not 0 <= fold < len(self.splits):
            raise ConfigError(
                f"{self.name} has no fold {fold}; its {len(self.splits)} folds are counted from 0"
            )
        for known in PART_NAMES:
            if name == known:
                wanted = set(self.splits[fold].part(known))
                return [case for case in self.cases if case.id in wanted]
        raise ConfigError(f"there is no part {name!r} of a data set; choose {', '.join(PART_NAMES)} or all")


def is_prepared_set(folder: Path) -> bool:
    """Tell whether a folder holds the manifest of a prepared data set."""
    return (folder / MANIFEST_NAME).is_file()


def read_prepared_set(folder: Path) -> PreparedSet:
    """Read the manifest of a prepared data set.

    Raises:
        ConfigError: when there is none, or it is damaged or of another version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not a prepared data set: {MANIFEST_NAME} is missing; run clickvol data prepare"
        )
    try:
        return PreparedSet.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error)
        if isinstance(error, ValidationError):
            fault = error.errors()[0]
            first = f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
        raise ConfigError(f"{path} cannot be used ({first}); run clickvol data prepare again") from error


def read_prepared_case(folder: Path, case: PreparedCase) -> tuple[Volume, NDArray[np.uint8]]:
    """Map the arrays of a case into memory, read-only.

    Args:
        folder: the prepared data set.
        case: one of its cases.

    Returns:
        The scan, and its mask (D, H, W) uint8, 0 or 1, on the same grid.

    Raises:
        ConfigError: when a file is missing or is not the array that the manifest describes.
    """
    image = _mapped(folder / CASES_NAME / case.image_file, case.shape_dhw, ("int16", "float32"))
    label = _mapped(folder / CASES_NAME / case.label_file, case.shape_dhw, ("uint8",))
    source = str(folder / CASES_NAME / case.image_file)
    return Volume(image, case.grid(), case.modality, source), label.view(np.uint8)


def _mapped(path: Path, shape: Shape, dtypes: tuple[str, ...]) -> NDArray[np.generic]:
    try:
        # A plain array: slices of numpy's own class for mapped files are slower.
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} is missing or damaged; run clickvol data prepare again") from error
    if array.shape != shape or array.dtype.name not in dtypes:
        raise ConfigError(
            f"{path} holds {array.dtype} of shape {array.shape}, but {' or '.join(dtypes)} of shape "
            f"{shape} was expected; run clickvol data prepare again"
        )
    return array


def read_native_case(case: PreparedCase) -> tuple[Volume, NDArray[np.uint8]]:
    """Read a case from the files it was made from, on their own grid.

    Returns:
        The scan, and its mask (D, H, W) uint8, 0 or 1, the tumour label applied.

    Raises:
        ConfigError: when a file has gone or has changed its size since, or no longer fits.
        UnreadableVolumeError: when a file cannot be read.
    """
    for file in (case.image, case.label):
        size, _ = file_state(file.path)
        if size != file.bytes:
            what = "is gone" if size == 0 else f"has {size} bytes, not {file.bytes}"
            raise ConfigError(f"{file.path} {what}, as it was prepared; bring it back or prepare again")
    image, mask = read_pair(case.image.path, case.label.path, case.tumour_label, volume_index=case.volume_index)
    return Volume(image.array, image.grid, case.modality, image.source, image.notes), mask


def read_pair(
    image_path: Path, label_path: Path, tumour_label: int | None, *, volume_index: int | None
) -> tuple[Volume, NDArray[np.uint8]]:
    """Read a scan and the mask of its object, which may be empty.

    Args:
        image_path: file or DICOM folder of the scan.
        label_path: the same of its label, or a DICOM Segmentation or RT Structure Set.
        tumour_label: value of the object; None for every value above 0.
        volume_index: which volume of a 4D image.

    Raises:
        ConfigError: when they are not on one grid.
        UnreadableVolumeError: when one of them cannot be read, or holds a single value.
    """
    image = read_volume(image_path, volume_index=volume_index)
    try:
        label = read_label(label_path, image)
    except UnreadableVolumeError as error:
        raise UnreadableVolumeError(f"the label cannot be used: {error}") from error
    check_one_grid(image, label)
    return image, object_mask(label.array, tumour_label)


def object_mask(label: NDArray[np.generic], tumour_label: int | None) -> NDArray[np.uint8]:
    """Return where a label (any shape) has the value of the tumour, or for None any above 0: 0 or 1."""
    values = label.astype(np.float32)
    inside = values > 0 if tumour_label is None else values == tumour_label
    return inside.astype(np.uint8)


def file_state(path: Path) -> tuple[int, int]:
    """Return size and time of last change (ns) of a file, or of all files of a folder; (0, 0) if gone."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    states = [file.stat() for file in files if file.is_file()]
    return sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)
