"""One case of a data set: read, checked, resampled and kept; done once."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from clickvol.datasets.case_index import measure, write_npy, write_row
from clickvol.datasets.fingerprint import SAMPLE_VOXELS, foreground_sample
from clickvol.datasets.levels import levels_along_patient
from clickvol.datasets.prepared import (
    LABELLED_BIT,
    MANIFEST_NAME,
    OBJECT_BIT,
    ORGAN_BIT,
    CaseFile,
    LabelledCase,
    RejectedCase,
    SourceFile,
    Triple,
    file_sha256,
    file_state,
    object_mask,
)
from clickvol.datasets.resampling import cache_values, level_numbers, resample, resample_mask, resampled_grid
from clickvol.datasets.sources import CaseFiles
from clickvol.datasets.stored_array import STORED_SUFFIX, write_stored
from clickvol.errors import BadGeometryError, ConfigError, UnreadableVolumeError
from clickvol.files.atomic import link_or_copy, write_text
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.challenge import read_challenge_label, read_challenge_scan
from clickvol.io.formats import read_volume, write_volume
from clickvol.io.mask_files import read_label
from clickvol.io.volume import Volume
from clickvol.io.voxel_values import RepairNote
from clickvol.preprocessing.channels import organ_of_values
from clickvol.preprocessing.intensity import recognise_modality, value_sample, wide_intensity_scale

# Outside these a header is more likely wrong (metres, micrometres) than right: clinical scans have 0.2 to
# 10 mm. Not stated by any of the papers; chosen with room on both sides.
SANE_SPACING_MM = (0.05, 20.0)

# Raised when the way a case is made changes, so that earlier files are not used.
_RECIPE = 5

# What every scan is kept in as it came, and the dtypes it may have there, in this order of preference.
_NATIVE_SUFFIX = ".nii.gz"
_NATIVE_DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)


@dataclass(frozen=True, kw_only=True)
class CaseOptions:
    """What is asked of every case.

    Attributes:
        tumour_label: value of the object in the label; None for every value above 0.
        refuse_several_labels: whether a label with several values above 0 is refused.
        spacing_dhw_mm: voxels of the .b2nd files; None for those of the scan.
        organs: see `PreparationPlan`.
    """

    tumour_label: int | None
    refuse_several_labels: bool = False
    spacing_dhw_mm: Triple | None
    volume_index: int | None
    organs: str = ""

    def organ_file(self, source: CaseFiles) -> Path | None:
        """Return the organ mask of a case; None where there is none."""
        if not self.organs:
            return None
        return source.image.parent / self.organs.format(case_id=source.case_id)


class _CaseEntry(BaseModel):
    """What is written when all files of a case are; `key` is of source files and options, see `_key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    case: LabelledCase


@dataclass(frozen=True, slots=True)
class _LabelledScan:
    """A case as it was read: scan, label with all values, masks (D, H, W) 0 or 1, the organ's from its file."""

    image: Volume
    label: Volume
    mask: NDArray[np.uint8]
    organ: NDArray[np.uint8] | None = None


def prepare_case(
    source: CaseFiles, folder: Path, options: CaseOptions, *, reuse: bool
) -> LabelledCase | RejectedCase:
    """Make the files of a case; equal options and unchanged files give equal bytes; OutputError if not.

    SeveralLabelsError where that is to be refused.

    Args:
        source: its files.
        folder: `cases/` of the prepared set; must exist.
        options: what is asked.
        reuse: keep finished files of the same options and source files.

    Returns:
        The case, its modality as its values look; or why it cannot be used.
    """
    key = _key(source, options)
    finished = _finished(source, folder, key) if reuse else None
    if finished is not None:
        return finished
    try:
        scan = read_case_files(source, options)
        kept = _resampled(scan, options.spacing_dhw_mm)
    except SeveralLabelsError:
        raise  # a question for the user about all cases
    except (UnreadableVolumeError, BadGeometryError, ConfigError) as error:
        return RejectedCase(case_id=source.case_id, reason=" ".join(str(error).split()))
    written = _write_files(source.case_id, folder, kept, scan, linkable=options.volume_index is None)
    native = scan.image.grid
    said = scan.image.modality
    sample = value_sample(scan.image)
    modality = said if said == "PT" else recognise_modality(scan.image, sample).modality
    case = LabelledCase(
        folder=folder.parent,
        case_id=source.case_id,
        group=source.group or source.case_id,
        modality="MR" if modality == "unknown" else modality,
        source_image=_source_file(source.image),
        source_label=_source_file(source.label),
        volume_index=options.volume_index,
        tumour_label=source.tumour_label or options.tumour_label,
        **written,
        has_labelled=bool((kept.bits & LABELLED_BIT).any()),
        has_organ=scan.organ is not None,
        shape_dhw=kept.grid.shape_dhw,
        affine_ras_mm=kept.grid.affine_ras_mm.tolist(),
        spacing_dhw_mm=kept.grid.spacing_dhw_mm.tolist(),
        native_shape_dhw=native.shape_dhw,
        native_spacing_dhw_mm=native.spacing_dhw_mm.tolist(),
        tumour_ml=int(scan.mask.sum(dtype=np.int64)) * native.voxel_volume_mm3 / 1000,
    )
    steps = wide_intensity_scale(case.modality, sample)
    for block, level in levels_along_patient(kept.values, kept.grid).items():
        numbers, values = level_numbers(level, kept.values, steps)
        write_stored(numbers, case.level_path(block), values)
    # Last: a case without it is not finished.
    content = _CaseEntry(key=key, case=case).model_dump_json(indent=1)
    write_text(_entry_path(folder, source.case_id), content + "\n")
    return case


def read_foreground_sample(folder: Path, case_id: str) -> NDArray[np.float32]:
    """Return the `foreground_sample` that was kept of a case."""
    values: NDArray[np.float32] = np.load(folder / _sample_name(case_id), allow_pickle=False)
    return values


def read_case_files(source: CaseFiles, options: CaseOptions) -> _LabelledScan:
    """Read and check a case; UnreadableVolumeError, BadGeometryError, ConfigError for what cannot be used."""
    if source.image.suffix == ".npz":
        image, label = read_challenge_scan(source.image), read_challenge_label(source.label)
    else:
        image = read_volume(source.image, volume_index=options.volume_index)
        try:
            label = read_label(source.label, image)
        except UnreadableVolumeError as error:
            raise UnreadableVolumeError(f"the label cannot be used: {error}") from error
    label.grid.check_same_place(image.grid, label.source, ConfigError)
    for note in image.notes:
        if isinstance(note, RepairNote):
            raise ConfigError(f"{source.image} holds voxels that are no numbers: {note}")
    low, high = SANE_SPACING_MM
    spacing = image.grid.spacing_dhw_mm
    if not ((spacing >= low) & (spacing <= high)).all():
        sides = " x ".join(f"{side:g}" for side in spacing)
        raise ConfigError(
            f"{source.image} has voxels of {sides} mm; {low:g} to {high:g} mm is expected: correct the header"
        )
    if options.refuse_several_labels:
        _refuse_several_labels(label)
    wanted = source.tumour_label or options.tumour_label
    mask = object_mask(label.array, wanted)
    if not mask.any():
        asked = "above 0" if wanted is None else f"{wanted}"
        raise ConfigError(f"{source.label} has no voxel of value {asked}: there is no object")
    return _LabelledScan(image, label, mask, _read_organ(source, options, image))


def _read_organ(source: CaseFiles, options: CaseOptions, image: Volume) -> NDArray[np.uint8] | None:
    path = options.organ_file(source)
    if path is None:
        return None
    try:
        organ = read_label(path, image)
    except UnreadableVolumeError as error:
        raise UnreadableVolumeError(f"the organ mask cannot be used: {error}") from error
    organ.grid.check_same_place(image.grid, organ.source, ConfigError)
    return organ_of_values(organ.array)


class SeveralLabelsError(ConfigError):
    """A label with several values above 0 where nobody said which is meant."""


def _refuse_several_labels(label: Volume) -> None:
    values = [f"{value:g}" for value in np.unique(label.array[object_mask(label.array, None) > 0])]
    if len(values) > 1:
        shown = ", ".join(values[:9]) + (", ..." if len(values) > 9 else "")
        raise SeveralLabelsError(
            f"{label.source} holds the labels {shown}; say which is the tumour with --label N, or --label all"
        )


@dataclass(frozen=True, slots=True)
class _Resampled:
    """What is trained on, (D, H, W): the scan's values as they are kept, the object, and all masks as bits."""

    grid: VolumeGrid
    values: NDArray[np.int16] | NDArray[np.float32]
    mask: NDArray[np.uint8]
    bits: NDArray[np.uint8]


def _resampled(scan: _LabelledScan, spacing_dhw_mm: Triple | None) -> _Resampled:
    """Return what is trained on; ConfigError when nothing is left of the object."""
    image = scan.image
    grid = image.grid if spacing_dhw_mm is None else resampled_grid(image.grid, spacing_dhw_mm)

    def on_grid(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return mask if spacing_dhw_mm is None else resample_mask(mask, image.grid, grid)

    mask = on_grid(scan.mask)
    if spacing_dhw_mm is not None and not mask.any():
        sides = " x ".join(f"{side:g}" for side in spacing_dhw_mm)
        voxels = np.count_nonzero(scan.mask)
        raise ConfigError(f"its object of {voxels} voxels is lost in voxels of {sides} mm; use smaller ones")
    values = image.array if spacing_dhw_mm is None else resample(image.array, image.grid, grid)
    bits = OBJECT_BIT * mask
    labelled = organ_of_values(scan.label.array) | scan.mask
    if not np.array_equal(labelled, scan.mask):
        bits |= LABELLED_BIT * on_grid(labelled)
    if scan.organ is not None:
        bits |= ORGAN_BIT * on_grid(scan.organ)
    return _Resampled(grid, cache_values(values, image.array), mask, bits.astype(np.uint8, copy=False))


def _write_files(
    case_id: str, folder: Path, kept: _Resampled, scan: _LabelledScan, *, linkable: bool
) -> dict[str, Any]:
    """Write the files of a case; return the fields of `LabelledCase` that name, hash and measure them."""
    # From here on the old files, made of something else, are no case, and a manifest of them is not true.
    _entry_path(folder, case_id).unlink(missing_ok=True)
    (folder.parent / MANIFEST_NAME).unlink(missing_ok=True)
    paths = {kind: folder / f"{case_id}.{kind}{STORED_SUFFIX}" for kind in ("image", "label")}
    write_stored(kept.values, paths["image"])
    write_stored(kept.bits, paths["label"])
    for kind, volume in (("native_image", scan.image), ("native_label", scan.label)):
        paths[kind] = folder / f"{case_id}.{kind}{_NATIVE_SUFFIX}"
        _keep_native(volume, paths[kind], linkable=linkable or volume is scan.label)
    files = {kind: CaseFile(name=path.name, sha256=file_sha256(path)) for kind, path in paths.items()}
    facts, row = measure(Volume(kept.values, kept.grid), kept.mask, case_id)
    write_row(row, row_path(folder, case_id))
    write_npy(foreground_sample(scan.image.array, scan.mask, case_id), folder / _sample_name(case_id))
    return {**files, "facts": facts, "image_dtype": kept.values.dtype.name}


def _keep_native(volume: Volume, path: Path, *, linkable: bool) -> None:
    """Keep a scan or label as it came: a NIfTI file without repairs as it is, anything else written anew."""
    if linkable and not volume.notes and volume.source.lower().endswith(_NATIVE_SUFFIX):
        link_or_copy(Path(volume.source), path)
        return
    dtype = next(d for d in _NATIVE_DTYPES if np.can_cast(volume.array.dtype, d))
    write_volume(volume.array.astype(dtype, copy=False), volume.grid, path)


def _key(source: CaseFiles, options: CaseOptions) -> str:
    """Return a hash of what decides about the arrays: the files (size and time of change) and the options."""
    paths = (source.image, source.label, options.organ_file(source))
    facts: dict[str, Any] = {
        "recipe": _RECIPE,
        "sample": SAMPLE_VOXELS,
        "options": asdict(options),
        "label": source.tumour_label,
        "group": source.group,
        "files": [[str(path.resolve()), *file_state(path)] for path in paths if path is not None],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _finished(source: CaseFiles, folder: Path, key: str) -> LabelledCase | None:
    """Return a case whose files are all there and were made of the same; else None."""
    try:
        entry = _CaseEntry.model_validate_json(_entry_path(folder, source.case_id).read_bytes())
    except (OSError, ValidationError):  # not begun, or by another version: made anew
        return None
    case = entry.case.model_copy(update={"folder": folder.parent})
    names = [file.name for file in (case.image, case.label, case.native_image, case.native_label)]
    paths = [folder / name for name in (*names, _sample_name(case.case_id))]
    paths += [case.level_path(block) for block in case.open_levels()]
    if entry.key != key or not all(path.is_file() for path in (*paths, row_path(folder, case.case_id))):
        return None
    return case


def row_path(folder: Path, case_id: str) -> Path:
    """Return where `cases/` keeps what the index has of a case."""
    return folder / f"{case_id}.index.npy"


def _entry_path(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}.json"


def _sample_name(case_id: str) -> str:
    return f"{case_id}.foreground.npy"


def _source_file(path: Path) -> SourceFile:
    return SourceFile(path=path.resolve(), bytes=file_state(path)[0])
