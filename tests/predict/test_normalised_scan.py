"""An organ mask beside the scan, with networks of random weights."""

import numpy as np
import pytest

from clickvol import Click, InteractiveSession, segment
from clickvol.errors import ConfigError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask, Volume
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.methods.tags import tags_recipe
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.preprocessing.intensity import IntensityScale
from reference.random_models import random_model

AFFINE = np.array([[0, 0, -2.0, 40], [0, -2.0, 0, 30], [3.0, 0, 0, -20], [0, 0, 0, 1]])
SHAPE = (20, 30, 36)
CLICK = Click(VoxelPoint(10, 15, 18))


@pytest.fixture(scope="module")
def model():
    return random_model(tags_recipe("clickvol", "tiny"))


@pytest.fixture
def scan():
    array = np.random.default_rng(0).normal(40, 30, SHAPE).astype(np.float32)
    return Volume(array, VolumeGrid(SHAPE, AFFINE), "CT")


@pytest.fixture
def organ(scan):
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[4:16, 6:20, 10:24] = 1
    return Mask(array, scan.grid)


def patches_seen(monkeypatch):
    seen = []
    original = LiftedSegmenter.encode_image

    def record(self, patch):
        seen.append(patch.clone())
        return original(self, patch)

    monkeypatch.setattr(LiftedSegmenter, "encode_image", record)
    return seen


def test_the_mask_changes_the_answer_and_its_absence_is_said(scan, organ, model):
    with_mask = segment(scan, [CLICK], model, organ_mask=organ)
    without = segment(scan, [CLICK], model)
    assert [line for line in with_mask.warnings if "reaches the border of the scan" not in line] == []
    assert (
        "random was made to see an organ mask and got none; it saw the scan in its place, so check the mask "
        "with care (--organ-mask FILE gives one)"
    ) in without.warnings
    assert not np.array_equal(with_mask.probability(), without.probability())


def test_without_a_mask_the_scan_stands_in_its_place(scan, model, monkeypatch):
    seen = patches_seen(monkeypatch)
    segment(scan, [CLICK], model)
    assert seen
    assert all((patch[:, 0] == patch[:, 1]).all() for patch in seen)


def test_the_mask_is_cut_with_the_scan_and_not_normalised(scan, organ):
    scale = IntensityScale.of_window(-160, 240)
    # Patch voxels on scan voxels along h and w: 2 mm; the click's centre between two of the patch.
    centre = scan.grid.to_world(VoxelPoint(10, 15.5, 18.5))
    field = FieldOfView(centre, 2.0, (32, 32, 32))
    normalised = NormalisedScan(volume=scan, modality="CT", scale=scale, organ_mask=organ, num_channels=2)
    image, mask = normalised.sample(field.grid())
    assert -2 < image.min() < image.max() < 2
    assert set(np.unique(mask)) == {0.0, 1.0}
    # h and w of the file run against the patient's: 6..19 is 11.5 - 15.5 .. from the middle, and so on.
    result = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    low_hw = [15.5 + (15.5 - 19), 15.5 + (18.5 - 23)]
    assert [int(result[axis][0]) for axis in (1, 2)] == low_hw
    assert [len(result[axis]) for axis in (1, 2)] == [14, 14]
    # Slices 3.5 to 15.5 of 3 mm, about slice 10: 19.5 mm below to 16.5 mm above the middle.
    assert [result[0][0], result[0][-1]] == [6, 23]


def test_a_mask_on_another_grid_is_the_same_mask(scan, organ, model):
    flipped_affine = AFFINE.copy()
    flipped_affine[:3, 2] = -AFFINE[:3, 2]
    flipped_affine[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, 2] * (SHAPE[2] - 1)
    flipped = Volume(organ.array[:, :, ::-1].astype(np.int16) * 3, VolumeGrid(SHAPE, flipped_affine))
    one, other = (segment(scan, [CLICK], model, organ_mask=m) for m in (organ, flipped))
    np.testing.assert_array_equal(one.probability(), other.probability())


def test_tokens_in_text_space_are_not_kept(scan, model):
    opened = ScanPredictor(scan, model)
    opened.predict([CLICK])
    kept = [view.encoded for view in opened._patches._views.values()]
    assert kept
    assert all(encoded.aligned == () for encoded in kept)


def test_images_of_other_programs_are_the_same_scan_and_organ(scan, organ, model):
    ours = segment(scan, [CLICK], model, modality="CT", organ_mask=organ)
    theirs = segment(scan.to_nibabel(), [CLICK], model, modality="CT", organ_mask=organ.to_sitk())
    assert np.array_equal(theirs.mask.array, ours.mask.array)
    assert np.array_equal(theirs.probability_in_box, ours.probability_in_box)
    session = InteractiveSession(model)
    session.set_volume(scan.to_sitk(), modality="CT", organ_mask=organ.to_nibabel())
    session.click(VoxelPoint(10, 15, 18))
    assert np.array_equal(session.mask().array, ours.mask.array)


def test_a_model_without_the_channel_takes_no_mask(scan, organ):
    plain = random_model(sam3d_adapter_recipe("released", "tiny"))
    refused = "^the model random takes no organ mask; leave the mask out, or use a model of the method tags$"
    with pytest.raises(ConfigError, match=refused):
        segment(scan, [CLICK], plain, organ_mask=organ)
    assert NormalisedScan.of(scan, plain).warnings == ()


def test_an_empty_mask_is_said(scan, model):
    empty = Mask(np.zeros(SHAPE, dtype=np.uint8), scan.grid)
    normalised = NormalisedScan.of(scan, model, organ_mask=empty)
    (warning,) = normalised.warnings
    assert normalised.organ_mask.num_voxels == 0
    assert warning == "the organ mask is empty; nothing in it is above 0"


@pytest.mark.parametrize(("axis", "shift_mm"), [(0, 200.0), (1, -200.0), (2, 500.0)])
def test_a_mask_of_another_place_is_refused(scan, organ, model, axis, shift_mm):
    affine = AFFINE.copy()
    affine[axis, 3] += shift_mm
    elsewhere = Mask(organ.array, VolumeGrid(SHAPE, affine))
    with pytest.raises(
        ConfigError, match=r"^the organ mask lies nowhere in the scan; give the mask of this scan$"
    ):
        NormalisedScan.of(scan, model, organ_mask=elsewhere)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_mask_counts_as_long_as_its_organ_touches_the_scan(scan, model, axis, side):
    organ = np.zeros(SHAPE, dtype=np.uint8)
    organ[(slice(None),) * axis + (0 if side > 0 else -1,)] = 1
    for beyond, fits in ((0, True), (1, False)):
        # The organ's face lies on the centres of the scan's outermost voxels, or a voxel farther out.
        steps = np.zeros((1, 3))
        steps[0, axis] = side * (SHAPE[axis] - 0.5 + beyond)
        affine = AFFINE.copy()
        affine[:3, 3] += scan.grid.world_steps(steps)[0]
        mask = Mask(organ, VolumeGrid(SHAPE, affine))
        if fits:
            assert NormalisedScan.of(scan, model, organ_mask=mask).organ_mask.num_voxels == organ.sum()
        else:
            with pytest.raises(ConfigError, match="nowhere"):
                NormalisedScan.of(scan, model, organ_mask=mask)
