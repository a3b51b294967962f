"""What of a model's card changes with the user's cases: voxel sizes, intensity scale, modalities."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from clickvol.adapt.cases import CaseObjects
from clickvol.preprocessing.intensity import CT_WINDOW_HU, recognise_modality, value_sample
from clickvol.weights.card import FieldOfViewPlan, ModelCard

# Voxels of the first view along a typical object, at least. Finer ones cost more of what the base knows of
# other objects than they bring (nodules, median 7 mm: docs/tutorials/adapt.md).
_FIRST_VOXELS = 2.0

# A fitted view may be as fine as this many object lengths per patch, but never finer than `_FINEST_MM`.
_FITTED_EXTENTS = 1.5
_FINEST_MM = 0.5

# Finer first views than this see too little of what lies around.
_FINEST_FIRST_MM = 1.5

# Voxels around an object that tell whether the soft-tissue window hides its surroundings; how many are many.
_AROUND_MM = 10.0
_MANY_BEYOND_WINDOW = 0.2


def fitted_card(card: ModelCard, cases: Sequence[CaseObjects], patch_side: int) -> ModelCard:
    """Return the card with voxel sizes, scale and modalities for these cases.

    Voxels only get finer than the base's, for small objects. CT goes to the wide scale where a fifth of what
    lies around the objects is beyond the soft-tissue window (lung, bone), PET always.
    """
    base = card.fields_of_view
    seen = {known_modality(case) for case in cases}
    is_wide = "PT" in seen or ("CT" in seen and _beyond_window(cases) > _MANY_BEYOND_WINDOW)
    return card.model_copy(
        update={
            "fields_of_view": None if base is None else fitted_views(base, _lengths(cases), patch_side),
            "intensity": "wide" if is_wide and card.intensity is None else card.intensity,
            "modalities": sorted({*card.modalities, *seen}),
        }
    )


def known_modality(case: CaseObjects) -> str:
    """Return what a scan is: what the user says, else what its values look like."""
    return recognise_modality(case.volume, value_sample(case.volume), knows_pet=True).modality


def fitted_views(base: FieldOfViewPlan, longest_mm: Sequence[float], patch_side: int) -> FieldOfViewPlan:
    """Return views for objects of these lengths, none coarser than the base's.

    Args:
        base: of the base.
        longest_mm: of each object the longest side of its bounding box.
        patch_side: voxels per side of a patch.
    """
    typical_mm = float(np.median(longest_mm))
    first, finest = typical_mm / _FIRST_VOXELS, _FITTED_EXTENTS * typical_mm / patch_side
    return base.model_copy(
        update={
            "first_voxel_mm": min(base.first_voxel_mm, max(_FINEST_FIRST_MM, round(first, 2))),
            "finest_voxel_mm": min(base.finest_voxel_mm, max(_FINEST_MM, round(finest, 2))),
        }
    )


def _lengths(cases: Sequence[CaseObjects]) -> list[float]:
    return [length for case in cases for length in case.longest_mm]


def _beyond_window(cases: Sequence[CaseObjects]) -> float:
    """Return which part of the voxels around the objects is below or above the soft-tissue window."""
    beyond, total = 0, 0
    low, high = CT_WINDOW_HU
    for case in cases:
        margin = np.ceil(_AROUND_MM / case.volume.grid.spacing_dhw_mm).astype(int).tolist()
        for box in ndimage.find_objects(case.numbers):
            sides = zip(box, margin, strict=True)
            part = tuple(slice(max(0, side.start - more), side.stop + more) for side, more in sides)
            values = np.asarray(case.volume.array[part], dtype=np.float32)
            beyond += int(np.count_nonzero((values < low) | (values > high)))
            total += values.size
    return beyond / max(1, total)
