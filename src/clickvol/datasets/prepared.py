"""A prepared data set: its manifest, and its cases as arrays.

A folder written by `clickvol data prepare`: `prepared.json` (this manifest), `index.npy` (what samplers need
to know of every case before they read one), `splits.json` (its splits in nnU-Net's form), and in `cases/` per
case compressed arrays (.b2nd: scan, masks, and the scan at coarser levels), of which training reads boxes, and
scan and label as they came (.nii.gz), which are evaluated. Nothing outside is needed to use it: the folder can
be moved.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Generic, Literal, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickvol.datasets.case_index import IndexRow, ObjectFacts, index_row, open_index
from clickvol.datasets.fingerprint import IntensityConstants
from clickvol.datasets.levels import along_patient, kept_blocks, spacing_along_patient
from clickvol.datasets.splits import PART_NAMES, Split
from clickvol.datasets.stored_array import STORED_SUFFIX, StoredArray
from clickvol.errors import ConfigError
from clickvol.files.validation import first_fault
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import read_volume
from clickvol.io.volume import Mask, SaidModality, Volume
from clickvol.preprocessing.channels import organ_of_label

MANIFEST_NAME = "prepared.json"
PICTURES_NAME = "pictures.json"
SPLITS_NAME = "splits.json"
CASES_NAME = "cases"

CaseModality = SaidModality

LabelBit = Literal[1, 2, 4]
"""Bits of a stored label: the object, everything that is labelled (the object, too; where there is more), and
the organ mask that came as a file of its own."""

OBJECT_BIT: Final = 1
LABELLED_BIT: Final = 2
ORGAN_BIT: Final = 4

# Hexadecimal digits by which the card of a model knows a scan; chosen: no two of a million are alike by chance.
_MARK_LENGTH = 16

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
_Row = tuple[float, float, float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RejectedCase(_Record):
    """A case that cannot be used; the reason is one line."""

    case_id: str
    reason: str


class SourceFile(_Record):
    """A file, or a DICOM series' folder, as it came (absolute path, bytes), to know where a case is from."""

    path: Path
    bytes: int


class CaseFile(_Record):
    """A file of a prepared case: its name in `cases/` and the SHA-256 of its content."""

    name: str = Field(pattern=r"^[^/\\]+$")
    sha256: str


class StoredCase(_Record):
    """A case of a prepared set: what it was made from, and its files.

    Attributes:
        folder: of the prepared set; known from where its manifest was read, and not written into it.
        group: what must stay in one part, such as the patient; the id where nothing else was said.
    """

    folder: Path = Field(default=Path(), exclude=True)
    case_id: str
    group: str
    source_image: SourceFile
    source_label: SourceFile
    image: CaseFile
    label: CaseFile

    def belongs_to(self, patients: tuple[str, ...]) -> bool:
        """Tell whether the case is of one of these patients (the part of its id after the last underscore)."""
        return self.case_id.rsplit("_", maxsplit=1)[-1] in patients

    def path_of(self, file: CaseFile) -> Path:
        """Return where a file of the case lies."""
        return self.folder / CASES_NAME / file.name

    def checked_path(self, file: CaseFile) -> Path:
        """Return where a file of the case lies; ConfigError where it is missing or is not what was written."""
        path = self.path_of(file)
        try:
            same = file_sha256(path) == file.sha256
        except OSError as error:
            raise ConfigError(
                f"{path} is missing; copy the whole folder, or run clickvol data prepare again"
            ) from error
        if not same:
            raise ConfigError(
                f"{path} is not the file that was prepared; copy it from where it is whole, or delete it and "
                "run clickvol data prepare again, which makes that case anew"
            )
        return path

    @property
    def as_it_came(self) -> CaseFile:
        """The image that is evaluated."""
        return self.image

    @property
    def scan_mark(self) -> str:
        """The beginning of the SHA-256 of the image as it came, by which a model's card knows it."""
        return self.as_it_came.sha256[:_MARK_LENGTH]

    @property
    def patient_mark(self) -> str:
        """The beginning of the SHA-256 of the group's id."""
        return hashlib.sha256(self.group.encode()).hexdigest()[:_MARK_LENGTH]

    @property
    def native_image_path(self) -> Path:
        """Where the image lies as it came."""
        return self.path_of(self.as_it_came).absolute()


class LabelledCase(StoredCase):
    """One labelled scan: what is trained on and what is evaluated.

    Attributes:
        volume_index: which volume of a 4D image it is; None for 3D.
        tumour_label: value of the object in the native label; None for every value above 0.
        image: .b2nd of the scan, (D, H, W).
        label: .b2nd of the masks, (D, H, W) uint8, see `LabelBit`.
        native_image, native_label: .nii.gz of scan and label as they came; the label has all of its values.
        has_labelled: whether more than the object is labelled.
        shape_dhw, affine_ras_mm, spacing_dhw_mm: of the two .b2nd files; the rows of a `VolumeGrid`'s matrix.
        tumour_ml: volume of the native mask.
    """

    modality: CaseModality
    volume_index: int | None
    tumour_label: int | None
    native_image: CaseFile
    native_label: CaseFile
    image_dtype: Literal["int16", "float32"]
    has_labelled: bool
    has_organ: bool
    facts: ObjectFacts
    shape_dhw: Shape
    affine_ras_mm: tuple[_Row, _Row, _Row, _Row]
    spacing_dhw_mm: Triple
    native_shape_dhw: Shape
    native_spacing_dhw_mm: Triple
    tumour_ml: float

    def grid(self) -> VolumeGrid:
        """Return the grid of the .b2nd files."""
        return VolumeGrid(self.shape_dhw, np.array(self.affine_ras_mm))

    def open_arrays(self) -> tuple[Volume, NDArray[np.uint8]]:
        """Return scan and mask, (D, H, W) uint8, 0 or 1, on the same grid; nothing is read.

        Both arrays are a `StoredArray`, which stands for a numpy array where that is sliced and then read; it
        raises a ConfigError when the file is missing or damaged.
        """
        path = self.path_of(self.image)
        image = StoredArray.whole(path, self.case_id, self.shape_dhw, self.image_dtype)
        array = cast("NDArray[np.generic]", image)
        return Volume(array, self.grid(), self.modality, str(path)), self.open_mask(OBJECT_BIT)

    def level_path(self, block: tuple[int, int, int]) -> Path:
        """Return the file of a coarser level of the scan."""
        d, h, w = block
        return self.folder / CASES_NAME / f"{self.case_id}.image_{d}x{h}x{w}{STORED_SUFFIX}"

    def open_levels(self) -> dict[tuple[int, int, int], NDArray[np.generic]]:
        """Return the levels of `kept_blocks` by their blocks, along the patient's axes; nothing is read."""
        grid = self.grid()
        shape = np.array(along_patient(np.broadcast_to(np.uint8(0), self.shape_dhw), grid).shape)
        levels: dict[tuple[int, int, int], NDArray[np.generic]] = {}
        for block in kept_blocks(spacing_along_patient(grid)):
            d, h, w = (-(-shape // block)).tolist()
            whole = StoredArray.whole(self.level_path(block), self.case_id, (d, h, w), self.image_dtype)
            levels[block] = cast("NDArray[np.generic]", whole)
        return levels

    def open_mask(self, bit: LabelBit) -> NDArray[np.uint8]:
        """Return a mask of the stored label, (D, H, W) uint8, 0 or 1, as `open_arrays`."""
        path = self.path_of(self.label)
        mask = StoredArray.whole(path, self.case_id, self.shape_dhw, np.uint8, bits=bit)
        return cast("NDArray[np.uint8]", mask)

    def read_native(self) -> tuple[Volume, NDArray[np.uint8]]:
        """Read the scan and its mask (D, H, W) uint8, 0 or 1, on the scan's own grid.

        ConfigError when a file is missing or is not the one that was written; UnreadableVolumeError when it
        cannot be read.
        """
        image, label = self.read_native_label()
        return image, object_mask(label, self.tumour_label)

    def read_native_label(self) -> tuple[Volume, NDArray[np.generic]]:
        """Read the scan and its label with all of its values, (D, H, W), as `read_native`."""
        return self.read_native_image(), self._read(self.native_label).array

    def read_native_image(self) -> Volume:
        """Read the scan alone, as `read_native`."""
        return replace(self._read(self.native_image), modality=self.modality)

    def read_native_organ(self) -> Mask:
        """Read every labelled voxel, as `read_native`; ConfigError where nothing but the object is labelled."""
        label = self._read(self.native_label)
        organ = organ_of_label(label.array, object_mask(label.array, self.tumour_label))
        return Mask(organ, label.grid)

    def read_organ(self) -> Mask:
        """Read the organ mask, on the prepared grid; ConfigError where the set was prepared without one."""
        if not self.has_organ:
            raise ConfigError(f"{self.case_id} has no organ mask; prepare the set with --organs")
        return Mask(np.asarray(self.open_mask(ORGAN_BIT)[...]), self.grid())

    @property
    def as_it_came(self) -> CaseFile:
        """The scan on its own grid."""
        return self.native_image

    def _read(self, file: CaseFile) -> Volume:
        return read_volume(self.checked_path(file))


CaseT = TypeVar("CaseT", bound=StoredCase)


class CaseSet(_Record, Generic[CaseT]):
    """The manifest of a prepared data set.

    Attributes:
        kind: layout that it came in.
        seed: of the splits, where they were drawn.
        splits: the folds.
        rejected: the others.
        notes: what a user should know, one sentence each.
        clickvol_version: what wrote it.
        content_hash: SHA-256 over the cached arrays, splits and settings, none of the places of files.
    """

    version: Literal[3] = 3
    name: str
    kind: str
    seed: int
    splits: tuple[Split, ...] = Field(min_length=1)
    cases: tuple[CaseT, ...] = Field(min_length=1)
    rejected: tuple[RejectedCase, ...]
    notes: tuple[str, ...]
    clickvol_version: str
    content_hash: str

    @model_validator(mode="after")
    def _names_its_cases(self) -> Self:
        known = {case.case_id for case in self.cases}
        if len(known) < len(self.cases):
            raise ValueError("two cases have one id")
        for fold in self.splits:
            for name in PART_NAMES:
                unknown = set(fold.part(name)) - known
                if unknown:
                    raise ValueError(f"the splits name {min(unknown)!r}, which is no case")
        return self

    def part(self, name: str, fold: int = 0) -> list[CaseT]:
        """Return the cases of "train", "val", "test" or "all"; ConfigError for another name or fold."""
        if name == "all":
            return list(self.cases)
        if not 0 <= fold < len(self.splits):
            raise ConfigError(
                f"{self.name} has no fold {fold}; its {len(self.splits)} folds are counted from 0"
            )
        for known in PART_NAMES:
            if name == known:
                wanted = set(self.splits[fold].part(known))
                return [case for case in self.cases if case.case_id in wanted]
        raise ConfigError(f"there is no part {name!r} of a data set; choose {', '.join(PART_NAMES)} or all")


class PreparedSet(CaseSet[LabelledCase]):
    """The manifest of prepared scans.

    Attributes:
        constants: name of the published constants that are used; None for the fingerprint.
        target_spacing_dhw_mm: voxels of the cached arrays; "native" for those of the files.
        intensity: clipping and normalisation for each modality of the set.
    """

    constants: str | None
    target_spacing_dhw_mm: Triple | Literal["native"]
    intensity: dict[CaseModality, IntensityConstants]


SetT = TypeVar("SetT", bound=CaseSet[Any])


class CaseIndex:
    """The rows of the index of a set, by case; ConfigError for a missing file, or one of another manifest."""

    def __init__(self, prepared: PreparedSet) -> None:
        cases = prepared.cases
        self._table: NDArray[Any] = open_index(cases[0].folder, (case.image.sha256 for case in cases))
        self._number = {case.case_id: number for number, case in enumerate(cases)}

    def row(self, case: LabelledCase) -> IndexRow:
        """Return the row of a case; read from the disk when it is used."""
        return index_row(self._table, self._number[case.case_id], case.facts.num_voxels)


def is_prepared_set(folder: Path) -> bool:
    """Tell whether a folder holds the manifest of a prepared data set."""
    return (folder / MANIFEST_NAME).is_file()


def read_prepared_set(folder: Path) -> PreparedSet:
    """Read the manifest of a prepared data set; ConfigError when there is none, or it is damaged or older."""
    if not is_prepared_set(folder):
        if (folder / PICTURES_NAME).is_file():
            raise ConfigError(
                f"{folder} holds pictures, but scans are expected; "
                "in a training file their modality is picture: docs/how-to/pictures.md"
            )
        layout = "npz" if any(folder.glob("*.npz")) else "LAYOUT"
        layout = "msd" if (folder / "dataset.json").is_file() else layout
        raise ConfigError(
            f"{folder} is not a prepared data set: {MANIFEST_NAME} is missing; run: clickvol data prepare "
            f"{layout} {folder} -o NEW_FOLDER"
        )
    return read_manifest(folder / MANIFEST_NAME, PreparedSet)


def read_manifest(path: Path, form: type[SetT]) -> SetT:
    """Read the manifest of a prepared set of one form; ConfigError when it is damaged or of another version."""
    try:
        written = form.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{path} cannot be used ({first}); run clickvol data prepare again") from error
    cases = tuple(case.model_copy(update={"folder": path.parent}) for case in written.cases)
    return written.model_copy(update={"cases": cases})


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


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
