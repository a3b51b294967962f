"""Scans of a training set as 8-bit tensors that stay on the device, and the one file that carries them.

Every scan is kept at several resolutions: averaged over blocks of voxels as `patches.field_of_view.extract`
does for coarser patches, so that nothing aliases and training sees what prediction sees. All scans lie one
after the other in one flat tensor per kind; a batch of patches from different scans is then a single gather.
Of the masks only the objects' boxes are kept.

Voxel axes run along the patient's as nearly as they can: d to superior, h to anterior, w to the right.
"""

import json
import lzma
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import Triple, block_mean

NORMALISED_RANGE = (-2.6, 2.6)
"""Normalised values that the 256 steps of a stored image stand for."""

BODY_VALUE = -1.1
"""Normalised values up to this are air, lung, or the background of MR and PET."""

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
        # RAS is (right, anterior, superior), and so (w, h, d).
        to_patient = case.volume.grid.world_steps(np.eye(3)).T[::-1]
        order = max(permutations(range(3)), key=lambda axes: np.abs(to_patient[range(3), axes]).sum())
        flipped = tuple(axis for axis in range(3) if to_patient[axis, order[axis]] < 0)
        matrix = to_patient[:, order]
        matrix[:, list(flipped)] *= -1
        spacing = np.linalg.norm(matrix, axis=0)

        def turned(array: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.ascontiguousarray(np.flip(np.asarray(array).transpose(order), flipped))

        values = case.scale.normalise(turned(case.volume.array).astype(np.float32))
        low, high = float(values.min()), float(values.max())
        high = high if high > low else low + 1.0
        d, h, w = spacing.tolist()
        return cls(
            name,
            group,
            name,
            (d, h, w),
            to_steps(values, (low, high)),
            turned(case.label).astype(np.uint8),
            value_range=(low, high),
            outside=float(case.scale.normalise(np.array([case.outside_value], dtype=np.float32))[0]),
            axes_dhw=matrix / spacing,
            organ=None if case.organ is None else turned(case.organ).astype(np.uint8),
        )


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


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The objects that samples are drawn around; numpy, on the host.

    Attributes:
        group: (n,) index into `ScanStore.groups`.
        scan: (n,) index of the scan.
        number: (n,) value in the label.
        longest_mm: (n,) longest side of the bounding box along the patient's axes.
        low_dhw, high_dhw: (n, 3) first and last voxel of the bounding box.
        patient: (n,) index of the patient.
        first_voxel, num_voxels: (n,) part of `voxels_dhw` that belongs to the object.
        voxels_dhw: (m, 3) int16.
        mask_start: (n, l) into `ScanStore.masks`.
        mask_shape_dhw: (n, l, 3) of the object's box in each level, with one empty voxel on every side.
        mask_low_dhw: (n, l, 3) voxel of the level at index (0, 0, 0) of that box.
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
    mask_start: NDArray[np.int64]
    mask_shape_dhw: NDArray[np.int64]
    mask_low_dhw: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ScanStore:
    """All scans on the device, and on the host what is needed to draw from them.

    Attributes:
        groups: names.
        images: (n,) uint8, flat, every level of every scan.
        masks: (m,) uint8, flat, every level of the box of every object: 255 where all of a voxel is object.
        organs: (n,) uint8 as `images`: 255 where all of a voxel is organ; None where no scan has one.
        has_organ: (s,).
        voxels_per_mm: (s, 3, 3) from the patient's (d, h, w) mm to voxels of the finest level.
        spacing_dhw_mm: (s, 3).
        shape_dhw: (s, 3) of the finest level.
        level_start: (s, l) into `images`.
        level_shape_dhw: (s, l, 3).
        level_block_dhw: (s, l, 3) voxels of the finest level per voxel of this one.
        value_low, value_step: (s,) normalised value of a stored 0, and of one step.
        outside: (s,) normalised value outside each scan.
        objects: what clicks are drawn in.
        body_voxels_dhw: (s, k, 3) int16, random voxels that are not air.
    """

    groups: tuple[str, ...]
    images: Tensor
    masks: Tensor
    organs: Tensor | None
    has_organ: NDArray[np.bool_]
    voxels_per_mm: NDArray[np.float64]
    spacing_dhw_mm: NDArray[np.float64]
    shape_dhw: NDArray[np.int64]
    level_start: NDArray[np.int64]
    level_shape_dhw: NDArray[np.int64]
    level_block_dhw: NDArray[np.int64]
    value_low: NDArray[np.float64]
    value_step: NDArray[np.float64]
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
        starts, images, organs = [], [], []
        offset = 0
        for scan, scan_levels in zip(scans, levels, strict=True):
            row: list[int] = []
            for number, (array, block) in enumerate(scan_levels):
                if number and array is scan_levels[number - 1][0]:
                    row.append(row[-1])
                    continue
                row.append(offset)
                offset += array.size
                images.append(torch.from_numpy(array.reshape(-1)))
                organs.append(_organ_level(scan, block, array.shape))
            starts.append(row)
        groups = tuple(sorted({scan.group for scan in scans}))
        has_organ = np.array([scan.organ is not None for scan in scans])
        ranges = np.array([scan.value_range for scan in scans])
        blocks = np.array([[block for _, block in scan_levels] for scan_levels in levels])
        objects, masks = _objects_of(scans, groups, blocks)
        return cls(
            groups=groups,
            images=torch.cat(images).to(device),
            masks=masks.to(device),
            organs=torch.cat(organs).to(device) if has_organ.any() else None,
            has_organ=has_organ,
            voxels_per_mm=np.stack([_voxels_per_mm(scan) for scan in scans]),
            spacing_dhw_mm=np.array([scan.spacing_dhw_mm for scan in scans]),
            shape_dhw=np.array([scan.label.shape for scan in scans]),
            level_start=np.array(starts),
            level_shape_dhw=np.array([[array.shape for array, _ in scan_levels] for scan_levels in levels]),
            level_block_dhw=blocks,
            value_low=ranges[:, 0],
            value_step=(ranges[:, 1] - ranges[:, 0]) / 255,
            outside=np.array([_outside(scan) for scan in scans]),
            objects=objects,
            body_voxels_dhw=np.stack([_body_voxels(scan) for scan in scans]),
        )


def _voxel_matrix(scan: StoredScan) -> NDArray[np.float64]:
    """Return the matrix from voxel steps to the patient's (d, h, w) mm."""
    axes = np.eye(3) if scan.axes_dhw is None else scan.axes_dhw
    return np.asarray(axes * np.array(scan.spacing_dhw_mm))


def _voxels_per_mm(scan: StoredScan) -> NDArray[np.float64]:
    """Return the matrix from the patient's (d, h, w) mm to voxel steps."""
    affine = np.eye(4)
    affine[:3, :3] = _voxel_matrix(scan)
    d, h, w = scan.label.shape
    return VolumeGrid((d, h, w), affine).voxel_steps(np.eye(3)).T


def _outside(scan: StoredScan) -> float:
    """Return the normalised value of air, or of the background."""
    if scan.outside is not None:
        return scan.outside
    darkest = int(scan.image.min())
    low, high = scan.value_range
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


def _organ_level(scan: StoredScan, block: Triple, shape: tuple[int, ...]) -> Tensor:
    """Return a level of an organ mask, flat; empty where there is none."""
    if scan.organ is None:
        return torch.zeros(int(np.prod(shape)), dtype=torch.uint8)
    share = 255 * block_mean(scan.organ, np.array(block))
    return torch.from_numpy(np.rint(share).astype(np.uint8).reshape(-1))


def _objects_of(
    scans: Sequence[StoredScan], groups: tuple[str, ...], blocks: NDArray[np.int64]
) -> tuple[ObjectTable, Tensor]:
    """List the objects, and lay their masks one after the other."""
    patients = sorted({f"{scan.group}/{scan.patient}" for scan in scans})
    order = {name: n for n, name in enumerate(patients)}
    rows: list[tuple[object, ...]] = []
    voxels: list[NDArray[np.int16]] = []
    masks: list[NDArray[np.uint8]] = []
    first = offset = 0
    for number, scan in enumerate(scans):
        rng = np.random.default_rng([7, number])
        places = np.argwhere(scan.label)
        values = scan.label[tuple(places.T)]
        for value in np.unique(values):
            mine = places[values == value]
            low, high = mine.min(axis=0), mine.max(axis=0)
            corners = np.abs(_voxel_matrix(scan)).sum(axis=1) + np.ptp(mine @ _voxel_matrix(scan).T, axis=0)
            starts: list[int] = []
            shapes: list[NDArray[np.int64]] = []
            lows: list[NDArray[np.int64]] = []
            for level, block in enumerate(blocks[number]):
                if level == 0 or (block != blocks[number, level - 1]).any():
                    mask, lowest = _object_level(scan.label, int(value), low, high, block)
                    start, shape = offset, np.array(mask.shape)
                    masks.append(mask.reshape(-1))
                    offset += mask.size
                starts.append(start)
                shapes.append(shape)
                lows.append(lowest)
            if len(mine) > MAX_VOXELS_PER_OBJECT:
                mine = mine[rng.choice(len(mine), MAX_VOXELS_PER_OBJECT, replace=False)]
            voxels.append(mine.astype(np.int16))
            patient = order[f"{scan.group}/{scan.patient}"]
            facts = (groups.index(scan.group), number, int(value), float(corners.max()), low, high, patient)
            rows.append((*facts, first, len(mine), starts, shapes, lows))
            first += len(mine)
    names = "group scan number longest_mm low_dhw high_dhw patient first_voxel num_voxels mask_start "
    names += "mask_shape_dhw mask_low_dhw"
    columns = {
        name: np.array(column) for name, column in zip(names.split(), zip(*rows, strict=True), strict=True)
    }
    table = ObjectTable(**columns, voxels_dhw=np.concatenate(voxels))
    return table, torch.from_numpy(np.concatenate(masks))


def _object_level(
    label: NDArray[np.uint8],
    value: int,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    block: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return an object's box in a level with an empty voxel on every side, 0 to 255, and its first voxel."""
    first, last = low // block, high // block
    box = tuple(slice(a * b, (z + 1) * b) for a, z, b in zip(first, last, block, strict=True))
    share = block_mean(label[box] == value, block)
    return np.pad(np.rint(255 * share).astype(np.uint8), 1), first - 1


def _body_voxels(scan: StoredScan, count: int = 1024) -> NDArray[np.int16]:
    """Draw voxels for synthetic lesions: three quarters well above air, some in lung or background."""
    rng = np.random.default_rng(len(scan.name))
    flat = scan.image.reshape(-1)
    low, high = scan.value_range
    # Up to -1.1 is air, lung, the background of MR and PET; just above the lowest step, air and padding.
    inside = np.flatnonzero(flat > (BODY_VALUE - low) * 255 / (high - low))
    around = np.flatnonzero(flat > 4)
    picked = rng.integers(0, flat.size, count)
    if len(around):
        picked = rng.choice(around, count)
    if len(inside):
        picked[: count * 3 // 4] = rng.choice(inside, count * 3 // 4)
    return np.stack(np.unravel_index(picked, scan.image.shape), axis=1).astype(np.int16)
