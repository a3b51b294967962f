"""The user's labelled scans as single objects: what is trained on, clicked and scored."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.datasets.device.stored_scan import StoredScan, numbered_parts, to_steps
from clickvol.datasets.prepared import LabelledCase
from clickvol.geometry.patient_axes import PatientAxes
from clickvol.io.volume import Modality, Volume
from clickvol.phantoms.painting import PhantomModality
from clickvol.phantoms.phantom import make_phantom
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.weights.load import LoadedModel

GROUP = "adapt"
"""All cases are one group of the store."""

# What is kept around the objects for training: half of the widest view, and at least a hand's breadth.
_MARGIN_MM = 100.0

# Of the synthetic scans that tell what was lost of other objects.
_NUM_SYNTHETIC = 6
_FIRST_SEED = 200


@dataclass(frozen=True, slots=True, eq=False)
class CaseObjects:
    """A scan whose mask is cut into objects.

    Attributes:
        case_id, patient: of the scan.
        volume: on its own grid; its modality is what the user said, else unknown.
        numbers: (D, H, W) uint8, 0 or the number of an object, the largest is 1.
        longest_mm: of each object the longest side of its bounding box.
    """

    case_id: str
    patient: str
    volume: Volume
    numbers: NDArray[np.uint8]
    longest_mm: tuple[float, ...]


def read_objects(case: LabelledCase, modality: Modality | None) -> CaseObjects:
    """Read a case and number the connected parts (26 neighbours) of its mask, the largest first.

    Args:
        case: prepared.
        modality: what the user says the scans are; None leaves it to the file and the values, as for a user of
            the model.
    """
    volume, mask = case.read_native()
    numbers = numbered_parts(mask)
    sides = [
        tuple(side.stop - side.start for side in box)
        for box in ndimage.find_objects(numbers)
        if box is not None
    ]
    longest = tuple(float((np.array(side) * volume.grid.spacing_dhw_mm).max()) for side in sides)
    volume = replace(volume, modality=modality or "unknown", source="", notes=())
    return CaseObjects(case.case_id, case.group, volume, numbers, longest)


def synthetic_cases() -> list[CaseObjects]:
    """Return the same few synthetic scans, half CT and half MR, each of one tumour that is no user's object."""
    cases = []
    for number in range(_NUM_SYNTHETIC):
        modality: PhantomModality = "MR" if number % 2 else "CT"
        phantom = make_phantom(_FIRST_SEED + number, modality=modality)
        name = f"synthetic-{number + 1}"
        volume = replace(phantom.volume, modality=modality)
        cases.append(CaseObjects(name, name, volume, phantom.truth.array, (0.0,)))
    return cases


def stored_scan(case: CaseObjects, model: LoadedModel) -> StoredScan:
    """Return what is trained on: the scan around its objects, on the model's scale, along patient axes."""
    scan = NormalisedScan.of(case.volume, model)
    axes = PatientAxes.of(case.volume.grid)
    numbers = axes.view(case.numbers).transpose(2, 1, 0)
    spacing = axes.spacing_mm[::-1]
    inside = np.argwhere(numbers)
    margin = np.ceil(max(_MARGIN_MM, *case.longest_mm) / spacing).astype(int)
    low = np.maximum(inside.min(axis=0) - margin, 0)
    high = inside.max(axis=0) + margin + 1
    part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    values = axes.view(case.volume.array).transpose(2, 1, 0)[part]
    d, h, w = spacing.tolist()
    return StoredScan(
        name=case.case_id,
        group=GROUP,
        patient=case.patient,
        spacing_dhw_mm=(d, h, w),
        image=to_steps(scan.scale.normalise(np.asarray(values, dtype=np.float32))),
        label=np.ascontiguousarray(numbers[part], dtype=np.uint8),
    )
