"""Scans of a training set as 8-bit tensors that stay on the device, and the one file that carries them.

Every scan is kept at several resolutions: averaged over blocks of voxels as `patches.field_of_view.extract`
does for coarser patches, so that nothing aliases and training sees what prediction sees. All scans lie one
after the other in one flat tensor per kind; a batch of patches from different scans is then a single gather.

Voxel axes are the patient's: d grows to superior, h to anterior, w to the right.
"""

import json
import lzma
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.patches.field_of_view import Triple, block_mean

NORMALISED_RANGE = (-2.6, 2.6)
"""Normalised values that the 256 steps of a stored image stand for."""

LEVEL_VOXELS_MM = (0.0, 1.5, 2.2, 3.2, 4.5)
"""Patch voxel sides from which a scan is read at a coarser level: blocks of floor(side / spacing) voxels. About
half an octave apart, so that a patch is at most that much sharper than one of prediction."""

MAX_VOXELS_PER_OBJECT = 4096
"""Voxels of an object that clicks are drawn from; a random part of those of larger objects."""

_FORMAT = "clickvol training pack 1"


@dataclass(frozen=True, slots=True, eq=False)
class StoredScan:
    """One scan in the pack.

    Attributes:
        name: of the case.
        group: which set and modality, for example "Sarcoma_CT"; groups are drawn with given shares.
        patient: all scans of a patient have the same.
        spacing_dhw_mm: voxel side.
        image: (D, H, W) uint8, see `NORMALISED_RANGE`.
        label: (D, H, W) uint8, 0 or the number of an object.
    """

    name: str
    group: str
    patient: str
    spacing_dhw_mm: tuple[float, float, float]
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]


def to_steps(normalised: NDArray[np.float32], *, bits: int = 8) -> NDArray[np.uint8]:
    """Round normalised values to the 256 steps of a stored image; fewer bits compress better."""
    low, high = NORMALISED_RANGE
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


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The objects that samples are drawn around; numpy, on the host.

    Attributes:
        group: (n,) index into `ScanStore.groups`.
        scan: (n,) index of the scan.
        number: (n,) value in the label.
        longest_mm: (n,) longest side of the bounding box.
        low_dhw, high_dhw: (n, 3) first and last voxel of the bounding box.
        patient: (n,) index of the patient.
        first_voxel, num_voxels: (n,) part of `voxels_dhw` that belongs to the object.
        voxels_dhw: (m, 3) int16.
    """

    group: NDArray[np.int64]
    scan: NDArray[np.int64]
    number: NDArray[np.int64]
    longest_mm: NDArray[np.float64]
    low_dhw: NDArray[np.int64]
    high_dhw: NDArray[np.int64]
    patient: NDArray[np.int64]
    first_voxel: NDArray[np.int64]
    num_voxels: NDArray[np.int64]
    voxels_dhw: NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class ScanStore:
    """All scans on the device, and on the host what is needed to draw from them.

    Attributes:
        groups: names.
        images: (n,) uint8, flat, every level of every scan.
        labels: (m,) uint8, flat, the finest level of every scan.
        spacing_dhw_mm: (s, 3).
        shape_dhw: (s, 3) of the finest level.
        label_start: (s,) into `labels`.
        level_start: (s, l) into `images`.
        level_shape_dhw: (s, l, 3).
        level_block_dhw: (s, l, 3) voxels of the finest level per voxel of this one.
        outside: (s,) normalised value outside each scan: that of its darkest voxel.
        objects: what clicks are drawn in.
        body_voxels_dhw: (s, k, 3) int16, random voxels that are not air.
    """

    groups: tuple[str, ...]
    images: Tensor
    labels: Tensor
    spacing_dhw_mm: NDArray[np.float64]
    shape_dhw: NDArray[np.int64]
    label_start: NDArray[np.int64]
    level_start: NDArray[np.int64]
    level_shape_dhw: NDArray[np.int64]
    level_block_dhw: NDArray[np.int64]
    outside: NDArray[np.float64]
    objects: ObjectTable
    body_voxels_dhw: NDArray[np.int16]

    @classmethod
    def of(cls, scans: Sequence[StoredScan], device: torch.device) -> "ScanStore":
        """Lay scans out on a device.

        Raises:
            ConfigError: when there are none, or none has an object.
        """
        if not any(scan.label.any() for scan in scans):
            raise ConfigError("there is no labelled object to train on; give scans with masks")
        with ThreadPoolExecutor() as pool:
            levels = list(pool.map(_levels_of, scans))
        starts, shapes, blocks, images = [], [], [], []
        offset = 0
        for scan_levels in levels:
            row: list[int] = []
            for number, (array, _) in enumerate(scan_levels):
                if number and array is scan_levels[number - 1][0]:
                    row.append(row[-1])
                    continue
                row.append(offset)
                offset += array.size
                images.append(torch.from_numpy(array.reshape(-1)))
            starts.append(row)
            shapes.append([array.shape for array, _ in scan_levels])
            blocks.append([block for _, block in scan_levels])
        sizes = [scan.label.size for scan in scans]
        groups = tuple(sorted({scan.group for scan in scans}))
        return cls(
            groups=groups,
            images=torch.cat(images).to(device),
            labels=torch.cat([torch.from_numpy(scan.label.reshape(-1)) for scan in scans]).to(device),
            spacing_dhw_mm=np.array([scan.spacing_dhw_mm for scan in scans]),
            shape_dhw=np.array([scan.label.shape for scan in scans]),
            label_start=np.concatenate([[0], np.cumsum(sizes)[:-1]]),
            level_start=np.array(starts),
            level_shape_dhw=np.array(shapes),
            level_block_dhw=np.array(blocks),
            outside=np.array([_outside(scan) for scan in scans]),
            objects=_objects_of(scans, groups),
            body_voxels_dhw=np.stack([_body_voxels(scan) for scan in scans]),
        )


def _outside(scan: StoredScan) -> float:
    """Return the normalised value of air, or of the background."""
    darkest = int(scan.image.min())
    low, high = NORMALISED_RANGE
    # A crop of CT without air is still CT: only the backgrounds of MR and PET lie higher than 20 steps.
    return low + (high - low) / 255 * (darkest if darkest > 20 else 0)


def _levels_of(scan: StoredScan) -> list[tuple[NDArray[np.uint8], Triple]]:
    """Return each level and its blocks; the very same array again where a coarser one would not differ."""
    levels: list[tuple[NDArray[np.uint8], Triple]] = [(scan.image, (1, 1, 1))]
    for voxel_mm in LEVEL_VOXELS_MM[1:]:
        d, h, w = (max(1, int(voxel_mm / side + 1e-3)) for side in scan.spacing_dhw_mm)
        if (d, h, w) != levels[-1][1]:
            mean = block_mean(scan.image, np.array([d, h, w]))
            levels.append((np.rint(mean).astype(np.uint8), (d, h, w)))
        else:
            levels.append(levels[-1])
    return levels


def _objects_of(scans: Sequence[StoredScan], groups: tuple[str, ...]) -> ObjectTable:
    patients = sorted({f"{scan.group}/{scan.patient}" for scan in scans})
    order = {name: n for n, name in enumerate(patients)}
    rows: list[tuple[int, int, int, float, NDArray[np.int64], NDArray[np.int64], int, int, int]] = []
    voxels: list[NDArray[np.int16]] = []
    first = 0
    for number, scan in enumerate(scans):
        rng = np.random.default_rng([7, number])
        places = np.argwhere(scan.label)
        values = scan.label[tuple(places.T)]
        for value in np.unique(values):
            mine = places[values == value]
            low, high = mine.min(axis=0), mine.max(axis=0)
            longest = float(((high - low + 1) * np.array(scan.spacing_dhw_mm)).max())
            if len(mine) > MAX_VOXELS_PER_OBJECT:
                mine = mine[rng.choice(len(mine), MAX_VOXELS_PER_OBJECT, replace=False)]
            voxels.append(mine.astype(np.int16))
            patient = order[f"{scan.group}/{scan.patient}"]
            rows.append(
                (groups.index(scan.group), number, int(value), longest, low, high, patient, first, len(mine))
            )
            first += len(mine)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return ObjectTable(
        group=columns[0],
        scan=columns[1],
        number=columns[2],
        longest_mm=columns[3],
        low_dhw=columns[4],
        high_dhw=columns[5],
        patient=columns[6],
        first_voxel=columns[7],
        num_voxels=columns[8],
        voxels_dhw=np.concatenate(voxels),
    )


def _body_voxels(scan: StoredScan, count: int = 1024) -> NDArray[np.int16]:
    """Draw voxels for synthetic lesions: three quarters well above air, some in lung or background."""
    rng = np.random.default_rng(len(scan.name))
    flat = scan.image.reshape(-1)
    # Steps up to 75 are below about -1.1: air, lung, the background of MR and PET; up to 4, air and padding.
    inside, around = np.flatnonzero(flat > 75), np.flatnonzero(flat > 4)
    picked = rng.integers(0, flat.size, count)
    if len(around):
        picked = rng.choice(around, count)
    if len(inside):
        picked[: count * 3 // 4] = rng.choice(inside, count * 3 // 4)
    return np.stack(np.unravel_index(picked, scan.image.shape), axis=1).astype(np.int16)
