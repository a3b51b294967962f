"""Lists of clicks on one scan, with the shipped model."""

from pathlib import Path

import numpy as np
import pytest

from clickvol import Click, load_model, read_volume, segment
from clickvol.errors import CancelledError, ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.volume import Volume
from clickvol.metrics.overlap import dice
from clickvol.phantoms.phantom import make_phantom
from clickvol.predict.patch_predictor import num_bytes
from clickvol.predict.scan_predictor import ScanPredictor

PET = Path(__file__).parents[3] / "shared" / "data" / "Sarcoma_PET" / "imagesTr" / "sts_029.nii.gz"


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(8, shape_dhw=(40, 80, 80), spacing_dhw_mm=(3.3, 1.8, 1.8), tumour_diameter_mm=100)


@pytest.fixture(scope="module")
def scan(phantom, model):
    return ScanPredictor(phantom.volume, model)


def test_what_was_asked_before_changes_nothing(phantom, model, scan):
    d, h, w = phantom.inside.as_array()
    clicks = [
        Click(phantom.inside),
        Click(VoxelPoint(d + 1, h, w + 3)),
        Click(VoxelPoint(d, h + 28, w), foreground=False),
    ]
    for count in (1, 2, 3):
        last = scan.predict(clicks[:count])
    together = segment(phantom.volume, clicks, model)
    np.testing.assert_array_equal(last.mask.array, together.mask.array)
    np.testing.assert_array_equal(last.probability(), together.probability())


def test_only_background_clicks_are_refused(phantom, scan):
    with pytest.raises(ClickError, match="no click inside"):
        scan.predict([Click(phantom.inside, foreground=False)])


def test_a_background_click_in_the_mask_takes_tissue_away_around_it(phantom, scan):
    first = scan.predict([Click(phantom.inside)])
    voxels = np.argwhere(first.mask.array)
    # The voxel of the mask that is farthest from the click.
    steps = (voxels - phantom.inside.as_array()) * phantom.volume.grid.spacing_dhw_mm
    far = voxels[(steps**2).sum(1).argmax()]
    click = Click(VoxelPoint(*map(float, far)), foreground=False)
    second = scan.predict([Click(phantom.inside), click])
    assert second.probability()[tuple(far)] < first.probability()[tuple(far)] - 0.1
    assert second.mask.array[tuple(phantom.inside.as_array().astype(int))] == 1


def test_the_mask_covers_the_tumour(phantom, scan):
    result = scan.predict([Click(phantom.inside)])
    assert dice(result.mask.array, phantom.truth.array) > 0.75
    assert result.modality == "CT"
    assert result.warnings == ()
    assert set(result.seconds) == {"prepare", "encode", "decode", "paste"}


def test_excluded_voxels_are_never_answered(phantom, scan):
    excluded = np.zeros(phantom.volume.grid.shape_dhw, dtype=bool)
    excluded[:, :, : int(phantom.inside.w)] = True
    free = scan.predict([Click(phantom.inside)])
    result = scan.predict([Click(phantom.inside)], exclude_mask=excluded)
    assert free.mask.array[excluded].any()
    assert not result.mask.array[excluded].any()
    assert not result.probability()[excluded].any()
    assert result.mask.array.any()


def test_features_stay_within_their_memory(phantom, model):
    roomy = ScanPredictor(phantom.volume, model)
    tight = ScanPredictor(phantom.volume, model, feature_memory_mb=0)
    masks = [scan.predict([Click(phantom.inside)]).mask.array for scan in (roomy, tight)]
    np.testing.assert_array_equal(*masks)
    # The fields of view of this answer: several in one, the last one alone in the other.
    views = roomy._patches._views.values()
    assert roomy.feature_bytes == sum(map(num_bytes, views))
    assert len(views) > 1
    assert len(tight._patches._views) == 1
    assert 10**6 < tight.feature_bytes < roomy.feature_bytes


def test_a_cancelled_answer_looks_no_more(phantom, scan):
    asked = []

    def cancelled():
        asked.append(True)
        return len(asked) == 2

    with pytest.raises(CancelledError, match="cancelled"):
        scan.predict([Click(phantom.inside)], cancelled=cancelled)
    assert len(asked) == 2


def test_a_scan_unlike_ct_and_mr_is_said(phantom):
    like_pet = (np.clip(phantom.volume.array.astype(np.float32), 0, None) / 100).astype(np.float32)
    model = load_model("promise3d-small", device="cpu")
    result = segment(Volume(like_pet, phantom.volume.grid), [Click(phantom.inside)], model)
    assert any("unlike" in warning for warning in result.warnings)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 40, 50), (40, 1, 64), (1, 1, 1)])
def test_scans_thinner_than_the_patch(phantom, model, shape):
    d, h, w = (int(v) for v in phantom.inside.as_array())
    whole = phantom.volume.array.shape
    corner = [max(0, min(c - n // 2, m - n)) for c, n, m in zip((d, h, w), shape, whole, strict=True)]
    part = phantom.volume.array[tuple(slice(a, a + n) for a, n in zip(corner, shape, strict=True))]
    affine = np.array(phantom.volume.grid.affine_ras_mm)
    affine[:3, 3] += affine[:3, :3] @ corner
    volume = Volume(part, type(phantom.volume.grid)(part.shape, affine), "CT")
    click = VoxelPoint(*(float(c - a) for c, a in zip((d, h, w), corner, strict=True)))
    result = segment(volume, [Click(click)], model)
    assert result.mask.array.shape == shape


@pytest.mark.skipif(not PET.is_file(), reason="the real PET scans are not on this machine")
def test_a_model_that_knows_pet_segments_it_without_a_warning():
    volume, label = read_volume(PET), read_volume(PET.parents[1] / "labelsTr" / PET.name)
    inside = np.argwhere(label.array > 0)
    d, h, w = inside[len(inside) // 2].tolist()
    clicks = [Click(VoxelPoint(d, h, w))]
    known = segment(volume, clicks, load_model("promise3d-lesions", device="cpu"))
    assert known.modality == "PT"
    assert known.warnings == ()
    assert dice(known.mask.array, (label.array > 0).astype(np.uint8)) > 0.6
    (warning,) = segment(volume, clicks, load_model("promise3d-small", device="cpu"), modality="PT").warnings
    assert "--model promise3d-lesions" in warning
