"""A scan of a training set at 8 bit, and the one file that carries many of them."""

import json
import lzma
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.datasets.levels import along_patient, patient_matrix
from clickvol.datasets.prepared import LabelledCase
from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.grid import VolumeGrid
from clickvol.preprocessing.intensity import value_sample, wide_intensity_scale

NORMALISED_RANGE = (-2.6, 2.6)
"""Normalised values that the 256 steps of a stored image stand for."""

BODY_VALUE = -1.1
"""Normalised values up to this are air, lung, or the background of MR and PET."""

MIN_OBJECT_VOXELS = 10
"""Smaller connected parts are taken for slips of the pen: no object, and not clicked."""

Objects = Literal["tumour", "labels", "parts"]
"""What of a label is an object by itself: the tumour, every value, or every connected part of the tumour."""

# A byte numbers the objects of a scan.
_MAX_OBJECTS = 255

_FORMAT = "clickvol training pack 1"


@dataclass(frozen=True, slots=True, eq=False)
class StoredScan:
    """One scan in the pack.

    Attributes:
        name: of the case.
        group: which set and modality, for example "Sarcoma_CT"; groups are drawn with given shares.
        patient: all scans of a patient have the same.
        spacing_dhw_mm: voxel side.
        image: (D, H, W) uint8 steps of `value_range`.
        label: (D, H, W) uint8, 0 or the number of an object.
        value_range: normalised values of the steps 0 and 255.
        outside: normalised value of what lies outside the scan; None guesses air or background from the image.
        axes_dhw: (3, 3), columns are the patient's (d, h, w) directions of the voxel axes; None for equal ones.
        organ: (D, H, W) uint8, 0 or 1, for networks that see an organ mask; None where there is none.
    """

    name: str
    group: str
    patient: str
    spacing_dhw_mm: tuple[float, float, float]
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    value_range: tuple[float, float] = NORMALISED_RANGE
    outside: float | None = None
    axes_dhw: NDArray[np.float64] | None = None
    organ: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, case: LabelledVolume, name: str, group: str) -> "StoredScan":
        """Turn a labelled scan along the patient, normalise it and round it to the 256 steps of its own range.

        Args:
            case: the scan.
            name: that tells it from the others of its group; every case counts as a patient.
            group: see above.
        """
        values = case.scale.normalise(np.asarray(case.volume.array, dtype=np.float32))
        low, high = float(values.min()), float(values.max())
        grid = case.volume.grid
        return cls._turned(
            grid,
            values,
            case.label,
            (low, high if high > low else low + 1.0),
            name=name,
            group=group,
            patient=name,
            outside=float(case.scale.normalise(np.array([case.outside_value], dtype=np.float32))[0]),
            organ=None if case.organ is None else np.array(along_patient(case.organ, grid), dtype=np.uint8),
        )

    @classmethod
    def of_prepared(cls, case: LabelledCase, group: str, objects: Objects) -> "StoredScan":
        """Read a prepared case as it came, on the wide scale, as a pack carries it.

        Args:
            case: of a prepared set.
            group: see above.
            objects: what of its label is one.

        Raises:
            ConfigError: when a file is missing or damaged, or a label has a value that is no object's number.
        """
        label: NDArray[np.generic]
        if objects == "labels":
            volume, label = case.read_native_label()
            values = np.unique(label)
            if not np.array_equal(values, np.clip(values, 0, _MAX_OBJECTS).astype(np.uint8)):
                raise ConfigError(
                    f"{case.case_id} has labels from {values[0]:g} to {values[-1]:g}; objects = labels takes "
                    f"whole numbers from 0 to {_MAX_OBJECTS}"
                )
        else:
            volume, mask = case.read_native()
            label = numbered_parts(mask) if objects == "parts" else mask
        scale = wide_intensity_scale(case.modality, value_sample(volume))
        return cls._turned(
            volume.grid,
            scale.normalise(np.asarray(volume.array, dtype=np.float32)),
            label,
            name=case.case_id,
            group=group,
            patient=case.group,
            outside=float(scale.normalise(np.array([scale.outside], dtype=np.float32))[0]),
        )

    @classmethod
    def _turned(
        cls,
        grid: VolumeGrid,
        normalised: NDArray[np.float32],
        label: NDArray[np.generic],
        value_range: tuple[float, float] = NORMALISED_RANGE,
        **facts: Any,  # noqa: ANN401
    ) -> "StoredScan":
        """Turn arrays (D, H, W) along the patient and round the scan's to the steps of a range."""
        matrix = patient_matrix(grid)
        spacing = np.linalg.norm(matrix, axis=0)
        d, h, w = spacing.tolist()
        return cls(
            spacing_dhw_mm=(d, h, w),
            image=to_steps(np.asarray(along_patient(normalised, grid), dtype=np.float32), value_range),
            label=np.ascontiguousarray(along_patient(label, grid), dtype=np.uint8),
            value_range=value_range,
            axes_dhw=matrix / spacing,
            **facts,
        )


def numbered_parts(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Number connected parts, the largest first; those under `MIN_OBJECT_VOXELS` are 0, unless all are.

    Args:
        mask: (D, H, W), the object where it is not 0.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:_MAX_OBJECTS]
    kept = [n for n in order.tolist() if sizes[n] >= MIN_OBJECT_VOXELS] or order[:1].tolist()
    numbers = np.zeros(count + 1, dtype=np.uint8)
    numbers[np.array(kept, dtype=int) + 1] = np.arange(1, len(kept) + 1)
    return np.asarray(numbers[parts])


def unpacked(cases: Sequence[LabelledVolume | StoredScan]) -> list[LabelledVolume]:
    """Return the scans that are not from a pack."""
    return [case for case in cases if isinstance(case, LabelledVolume)]


def to_steps(
    normalised: NDArray[np.float32], value_range: tuple[float, float] = NORMALISED_RANGE, *, bits: int = 8
) -> NDArray[np.uint8]:
    """Round normalised values to the 256 steps of a stored image; fewer bits compress better."""
    low, high = value_range
    coarse = 2 ** (8 - bits)
    steps = (np.clip(normalised, low, high) - low) * (255 / (high - low))
    return np.asarray(np.clip(np.rint(steps / coarse) * coarse, 0, 255), dtype=np.uint8)


def write_pack(scans: Iterable[StoredScan], target: Path) -> None:
    """Write scans into one compressed file, for a machine that has nothing else."""
    records = []
    with (
        atomic_path(target, ".zip") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for number, scan in enumerate(scans):
            archive.writestr(f"{number}.image", _compressed(scan.image))
            archive.writestr(f"{number}.label", _compressed(scan.label))
            records.append(
                {
                    "name": scan.name,
                    "group": scan.group,
                    "patient": scan.patient,
                    "spacing_dhw_mm": scan.spacing_dhw_mm,
                    "shape_dhw": scan.image.shape,
                }
            )
        archive.writestr("index.json", json.dumps({"format": _FORMAT, "scans": records}))


def read_pack(path: Path) -> list[StoredScan]:
    """Read what `write_pack` wrote.

    Raises:
        ConfigError: when the file is something else or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read("index.json"))
            if index["format"] != _FORMAT:
                raise ConfigError(f"{path} is no training pack of this version; write it again")
            members = {name: archive.read(name) for name in archive.namelist()}

        def scan_of(number: int) -> StoredScan:
            record = index["scans"][number]
            shape = tuple(record["shape_dhw"])
            image = _decompressed(members[f"{number}.image"], shape)
            label = _decompressed(members[f"{number}.label"], shape)
            d, h, w = record["spacing_dhw_mm"]
            return StoredScan(record["name"], record["group"], record["patient"], (d, h, w), image, label)

        with ThreadPoolExecutor() as pool:
            return list(pool.map(scan_of, range(len(index["scans"]))))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise ConfigError(f"cannot read the training pack {path} ({error}); write it again") from error


def _compressed(array: NDArray[np.uint8]) -> bytes:
    """Pack the differences along a row, which are small."""
    steps = np.diff(array, axis=-1, prepend=np.uint8(0))
    return lzma.compress(steps.tobytes(), preset=6)


def _decompressed(content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    steps = np.frombuffer(lzma.decompress(content), dtype=np.uint8).reshape(shape)
    return np.cumsum(steps, axis=-1, dtype=np.uint8)
