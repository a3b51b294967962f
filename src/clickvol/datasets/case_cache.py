"""One case of a data set: read, checked, resampled and kept as two .npy files; done once."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from clickvol.datasets.fingerprint import SAMPLE_VOXELS, foreground_sample
from clickvol.datasets.prepared import (
    MANIFEST_NAME,
    PreparedCase,
    RejectedCase,
    SourceFile,
    Triple,
    file_state,
    read_pair,
)
from clickvol.datasets.resampling import cache_values, resample, resample_mask, resampled_grid
from clickvol.datasets.sources import SourceCase
from clickvol.errors import BadGeometryError, ConfigError, UnreadableVolumeError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.io.voxel_values import RepairNote
from clickvol.preprocessing.intensity import recognise_modality, value_sample

# Outside these a header is more likely wrong (metres, micrometres) than right: clinical scans have 0.2 to
# 10 mm. Not stated by any of the papers; chosen with room on both sides.
SANE_SPACING_MM = (0.05, 20.0)

# Raised when the way a case is made changes, so that earlier files are not taken.
_RECIPE = 1


@dataclass(frozen=True, kw_only=True)
class CaseWish:
    """What is wanted of every case.

    Attributes:
        tumour_label: value of the object in the label; None for every value above 0.
        spacing_dhw_mm: voxels of the cached arrays; None for those of the files.
        volume_index: which volume of a 4D image.
    """

    tumour_label: int | None
    spacing_dhw_mm: Triple | None
    volume_index: int | None


class _CaseEntry(BaseModel):
    """What is written beside the arrays of a finished case.

    Attributes:
        key: of files and wish, see `_key`.
        case: what was made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    case: PreparedCase


def prepare_case(
    source: SourceCase, folder: Path, wish: CaseWish, *, reuse: bool
) -> PreparedCase | RejectedCase:
    """Make the files of a case, or find them made; the same wish and unchanged files give the same bytes.

    Args:
        source: its files.
        folder: where its arrays go; must exist.
        wish: what is wanted.
        reuse: take finished arrays of the same wish and files.

    Returns:
        The case, its group its own id and its modality as its values look; or why it cannot be used.

    Raises:
        OutputError: when the arrays cannot be written.
    """
    key = _key(source, wish)
    if reuse:
        finished = _finished(source, folder, key)
        if finished is not None:
            return finished
    try:
        image, mask = _read_checked(source, wish)
        kept = _resampled(image, mask, wish.spacing_dhw_mm)
    except (UnreadableVolumeError, BadGeometryError, ConfigError) as error:
        return RejectedCase(id=source.case_id, reason=" ".join(str(error).split()))
    files = _write_arrays(source.case_id, folder, kept, image, mask)
    modality = recognise_modality(image, value_sample(image)).modality
    case = PreparedCase(
        id=source.case_id,
        group=source.case_id,
        modality="CT" if modality == "CT" else "MR",
        image=_source_file(source.image),
        label=_source_file(source.label),
        volume_index=wish.volume_index,
        tumour_label=wish.tumour_label,
        **files,
        shape_dhw=kept.grid.shape_dhw,
        affine_ras_mm=kept.grid.affine_ras_mm.tolist(),
        spacing_dhw_mm=kept.grid.spacing_dhw_mm.tolist(),
        native_shape_dhw=image.grid.shape_dhw,
        native_spacing_dhw_mm=image.grid.spacing_dhw_mm.tolist(),
        tumour_ml=int(mask.sum(dtype=np.int64)) * image.grid.voxel_volume_mm3 / 1000,
    )
    # Last: a case without it is not finished.
    with atomic_path(_entry_path(folder, source.case_id), ".json") as temporary:
        content = _CaseEntry(key=key, case=case).model_dump_json(indent=1)
        temporary.write_text(content + "\n", encoding="utf-8")
    return case


def read_foreground_sample(folder: Path, case_id: str) -> NDArray[np.float32]:
    """Return the `foreground_sample` that was kept of a case."""
    values: NDArray[np.float32] = np.load(folder / _sample_name(case_id), allow_pickle=False)
    return values


def _read_checked(source: SourceCase, wish: CaseWish) -> tuple[Volume, NDArray[np.uint8]]:
    """Read a case.

    Raises:
        UnreadableVolumeError, BadGeometryError, ConfigError: for what cannot be used.
    """
    image, mask = read_pair(source.image, source.label, wish.tumour_label, volume_index=wish.volume_index)
    for note in image.notes:
        if isinstance(note, RepairNote):
            raise ConfigError(f"{source.image} holds voxels that are no numbers: {note}")
    low, high = SANE_SPACING_MM
    spacing = image.grid.spacing_dhw_mm
    if not ((spacing >= low) & (spacing <= high)).all():
        sides = " x ".join(f"{side:g}" for side in spacing)
        raise ConfigError(
            f"{source.image} has voxels of {sides} mm; {low:g} to {high:g} mm was expected, so mend the header"
        )
    if not mask.any():
        wanted = "above 0" if wish.tumour_label is None else f"{wish.tumour_label}"
        raise ConfigError(f"{source.label} has no voxel of value {wanted}: there is no object")
    return image, mask


@dataclass(frozen=True, slots=True)
class _Kept:
    """A case as it is kept: the grid, the scan's values and the mask, both (D, H, W)."""

    grid: VolumeGrid
    values: NDArray[np.generic]
    mask: NDArray[np.uint8]


def _resampled(image: Volume, mask: NDArray[np.uint8], spacing_dhw_mm: Triple | None) -> _Kept:
    """Return a case as it is kept.

    Raises:
        ConfigError: when nothing is left of the object.
    """
    if spacing_dhw_mm is None:
        return _Kept(image.grid, image.array, mask)
    grid = resampled_grid(image.grid, spacing_dhw_mm)
    kept_mask = resample_mask(mask, image.grid, grid)
    if not kept_mask.any():
        sides = " x ".join(f"{side:g}" for side in spacing_dhw_mm)
        voxels = np.count_nonzero(mask)
        raise ConfigError(f"its object of {voxels} voxels is lost in voxels of {sides} mm; take smaller ones")
    return _Kept(grid, resample(image.array, image.grid, grid), kept_mask)


def _write_arrays(
    case_id: str, folder: Path, kept: _Kept, image: Volume, mask: NDArray[np.uint8]
) -> dict[str, str]:
    """Write the arrays of a case; return the fields of `PreparedCase` that name and hash them."""
    # From here on the old files, made of something else, are no case, and a manifest of them is not true.
    _entry_path(folder, case_id).unlink(missing_ok=True)
    (folder.parent / MANIFEST_NAME).unlink(missing_ok=True)
    names = {kind: f"{case_id}.{kind}.npy" for kind in ("image", "label")}
    image_sha256 = _write_array(cache_values(kept.values, image.array), folder / names["image"])
    label_sha256 = _write_array(kept.mask, folder / names["label"])
    _write_array(foreground_sample(image.array, mask, case_id), folder / _sample_name(case_id))
    return {
        "image_file": names["image"],
        "label_file": names["label"],
        "image_sha256": image_sha256,
        "label_sha256": label_sha256,
    }


def _key(source: SourceCase, wish: CaseWish) -> str:
    """Return a hash of what decides about the arrays: the files (size and time of change) and the wish."""
    facts: dict[str, Any] = {
        "recipe": _RECIPE,
        "sample": SAMPLE_VOXELS,
        "wish": asdict(wish),
        "files": [[str(path.resolve()), *file_state(path)] for path in (source.image, source.label)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _finished(source: SourceCase, folder: Path, key: str) -> PreparedCase | None:
    """Return a case whose files are all there and were made of the same; else None."""
    try:
        entry = _CaseEntry.model_validate_json(_entry_path(folder, source.case_id).read_bytes())
    except (OSError, ValidationError):  # not begun, or by another version: made anew
        return None
    files = (entry.case.image_file, entry.case.label_file, _sample_name(source.case_id))
    if entry.key != key or not all((folder / name).is_file() for name in files):
        return None
    return entry.case


def _entry_path(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}.json"


def _sample_name(case_id: str) -> str:
    return f"{case_id}.foreground.npy"


def _source_file(path: Path) -> SourceFile:
    return SourceFile(path=path.resolve(), bytes=file_state(path)[0])


def _write_array(array: NDArray[np.generic], path: Path) -> str:
    """Write an array, uncompressed, wholly or not at all; return the SHA-256 of the file."""
    with atomic_path(path, ".npy") as temporary:
        np.save(temporary, array, allow_pickle=False)
        return _sha256(temporary)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
