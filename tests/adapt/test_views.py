import numpy as np
import pytest

from clickvol.adapt.cases import CaseObjects
from clickvol.adapt.views import fitted_card, fitted_views
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.weights.card import FieldOfViewPlan, read_card

BASE = FieldOfViewPlan(first_voxel_mm=3, finest_voxel_mm=1, coarsest_voxel_mm=6)


@pytest.mark.parametrize(
    ("longest_mm", "first", "finest"),
    [
        ([2.0] * 9, 1.5, 0.5),
        ([4.0] * 9, 2, 0.5),
        ([8.0] * 9, 3, 0.5),
        ([40.0] * 9, 3, 0.94),
        ([120.0] * 9, 3, 1),
        ([3.0, 6.0], 2.25, 0.5),
    ],
)
def test_voxels_get_finer_for_small_objects_and_never_coarser(longest_mm, first, finest):
    views = fitted_views(BASE, longest_mm, 64)
    assert (views.first_voxel_mm, views.finest_voxel_mm, views.coarsest_voxel_mm) == (first, finest, 6)


def case(inside, around, modality="unknown"):
    array = np.full((12, 40, 40), around, np.float32)
    numbers = np.zeros(array.shape, np.uint8)
    numbers[4:7, 18:22, 18:22] = 1
    array[numbers > 0] = inside
    return CaseObjects(
        "a", "p", Volume(array, VolumeGrid.axial(array.shape, (3, 2, 2)), modality), numbers, (9.0,)
    )


@pytest.mark.parametrize(
    ("inside", "around", "scale", "modality"), [(0, -850, "wide", "CT"), (40, 60, None, "CT")]
)
def test_lung_goes_to_the_wide_scale_and_muscle_does_not(inside, around, scale, modality):
    card = fitted_card(read_card("promise3d-small"), [case(inside, around, "CT")], 64)
    assert card.intensity == scale
    assert modality in card.modalities


def test_pet_goes_to_the_wide_scale():
    array = case(9.0, 2.0)
    card = fitted_card(read_card("promise3d-small"), [array], 64)
    assert card.intensity == "wide"
    assert "PT" in card.modalities


def test_a_scale_that_is_wide_stays():
    assert fitted_card(read_card("promise3d-lesions"), [case(40, 60, "CT")], 64).intensity == "wide"
