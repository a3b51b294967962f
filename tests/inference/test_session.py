"""Many clicks on one scan, with the shipped model."""

import numpy as np
import pytest

from clickvol import Click, InteractiveSession, load_model, segment
from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.metrics.overlap import dice
from clickvol.volumes.phantoms import make_phantom
from clickvol.volumes.volume import Volume


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(
        8, shape_dhw=(40, 80, 80), spacing_dhw_mm=(3.3, 1.8, 1.8), tumour_diameter_mm=100
    )


@pytest.fixture
def session(phantom, model):
    return InteractiveSession(phantom.volume, model)


def test_clicks_one_by_one_equal_all_at_once(phantom, model, session):
    d, h, w = phantom.inside.as_array()
    clicks = [
        Click(phantom.inside),
        Click(VoxelPoint(d + 1, h, w + 3)),
        Click(VoxelPoint(d, h + 28, w), foreground=False),
    ]
    for click in clicks:
        last = session.add_click(click)
    together = segment(phantom.volume, clicks, model)
    np.testing.assert_array_equal(last.mask.array, together.mask.array)
    np.testing.assert_array_equal(last.probability(), together.probability())


def test_undo_gives_the_mask_from_before_to_the_bit(phantom, session):
    before = session.add_click(Click(phantom.inside))
    beside = VoxelPoint(phantom.inside.d, phantom.inside.h + 20, phantom.inside.w)
    session.add_click(Click(beside, foreground=False))
    after = session.undo()
    np.testing.assert_array_equal(after.mask.array, before.mask.array)
    assert session.clicks == (Click(phantom.inside),)
    assert session.undo() is None
    assert session.clicks == ()


def test_a_refused_click_changes_nothing(phantom, session):
    session.add_click(Click(phantom.inside))
    with pytest.raises(ClickError, match="outside the scan"):
        session.add_click(Click(VoxelPoint(0, 0, 1000)))
    assert session.clicks == (Click(phantom.inside),)


def test_only_background_clicks_are_refused(phantom, session):
    with pytest.raises(ClickError, match="no click inside"):
        session.add_click(Click(phantom.inside, foreground=False))


def test_a_background_click_in_the_mask_takes_tissue_away_around_it(phantom, session):
    first = session.add_click(Click(phantom.inside))
    voxels = np.argwhere(first.mask.array)
    # The voxel of the mask that is farthest from the click.
    steps = (voxels - phantom.inside.as_array()) * phantom.volume.grid.spacing_dhw_mm
    far = voxels[(steps**2).sum(1).argmax()]
    second = session.add_click(Click(VoxelPoint(*map(float, far)), foreground=False))
    assert second.probability()[tuple(far)] < first.probability()[tuple(far)] - 0.1
    assert second.mask.array[tuple(phantom.inside.as_array().astype(int))] == 1


def test_the_mask_covers_the_tumour(phantom, session):
    found = session.add_click(Click(phantom.inside))
    assert dice(found.mask.array, phantom.truth.array) > 0.75
    assert found.modality == "CT"
    assert found.warnings == ()
    assert set(found.seconds) == {"prepare", "encode", "decode", "paste"}


def test_a_scan_unlike_ct_and_mr_is_said(phantom, model):
    like_pet = (np.clip(phantom.volume.array.astype(np.float32), 0, None) / 100).astype(np.float32)
    found = segment(Volume(like_pet, phantom.volume.grid), [Click(phantom.inside)], model)
    assert any("unlike" in warning for warning in found.warnings)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 40, 50), (40, 1, 64), (1, 1, 1)])
def test_scans_thinner_than_the_patch(phantom, model, shape):
    d, h, w = (int(v) for v in phantom.inside.as_array())
    whole = phantom.volume.array.shape
    corner = [
        max(0, min(c - n // 2, m - n)) for c, n, m in zip((d, h, w), shape, whole, strict=True)
    ]
    part = phantom.volume.array[tuple(slice(a, a + n) for a, n in zip(corner, shape, strict=True))]
    affine = np.array(phantom.volume.grid.affine_ras_mm)
    affine[:3, 3] += affine[:3, :3] @ corner
    volume = Volume(part, type(phantom.volume.grid)(part.shape, affine), "CT")
    click = VoxelPoint(*(float(c - a) for c, a in zip((d, h, w), corner, strict=True)))
    found = segment(volume, [Click(click)], model)
    assert found.mask.array.shape == shape
