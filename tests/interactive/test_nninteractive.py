"""A script for nnInteractive runs on our models."""

import numpy as np
import pytest
import torch

from clickvol import Click, load_model, nnInteractiveInferenceSession, segment
from clickvol.errors import ClickError, ConfigError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.phantoms.phantom import make_phantom

SPACING = (4.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, shape_dhw=(24, 48, 48), spacing_dhw_mm=SPACING, tumour_diameter_mm=50)


@pytest.fixture
def session(phantom, model):
    session = nnInteractiveInferenceSession(model)
    session.set_image(phantom.volume.array[None], spacing_mm=SPACING, modality="CT")
    return session


def as_lps(phantom):
    """The scan as nnU-Net's readers see an array: axes to superior, posterior and left."""
    affine = np.array([[0, 0, -3.0, 0], [0, -3.0, 0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
    return Volume(phantom.volume.array, VolumeGrid(phantom.volume.array.shape, affine), "CT")


def test_a_script_as_in_its_documentation(phantom, model, session):
    target = torch.zeros(phantom.volume.array.shape, dtype=torch.uint8)
    session.set_target_buffer(target)
    place = phantom.inside.as_array().astype(int)
    session.add_point_interaction(tuple(place), include_interaction=True)
    one = segment(as_lps(phantom), [Click(phantom.inside)], model).mask.array
    np.testing.assert_array_equal(target.numpy(), one)
    assert one.any()
    session.add_point_interaction((place[0], place[1] + 12, place[2]), include_interaction=False)
    assert (target.numpy() != one).any()
    assert session.undo()
    np.testing.assert_array_equal(session.target_buffer.numpy(), one)
    session.reset_interactions()
    assert not target.any()
    assert not session.undo()


def test_clicks_wait_for_the_prediction(phantom, model, session):
    target = np.zeros(phantom.volume.array.shape, dtype=np.uint8)
    session.set_target_buffer(target)
    d, h, w = phantom.inside.as_array()
    session.add_point_interaction((d, h + 12, w), False, run_prediction=False)
    assert not target.any()
    session.add_point_interaction((d, h, w), True)
    clicks = [Click(phantom.inside), Click(VoxelPoint(d, h + 12, w), foreground=False)]
    np.testing.assert_array_equal(target, segment(as_lps(phantom), clicks, model).mask.array)
    # Both were answered at once, and are taken back one by the other.
    assert session.undo()
    assert not target.any()


@pytest.mark.parametrize("how", ["box", "lasso"])
def test_a_box_and_a_lasso_are_the_click_in_their_middle(phantom, model, session, how):
    target = np.zeros(phantom.volume.array.shape, dtype=np.uint8)
    session.set_target_buffer(target)
    d, h, w = (int(v) for v in phantom.inside.as_array())
    if how == "box":
        session.add_bbox_interaction([[d, d + 1], [h - 3, h + 4], [w - 3, w + 4]], True)
    else:
        drawn = np.zeros_like(target)
        drawn[d, h - 3 : h + 4, w - 3 : w + 4] = 1
        session.add_lasso_interaction(drawn, True)
    wanted = segment(as_lps(phantom), [Click(VoxelPoint(d, h, w))], model).mask.array
    np.testing.assert_array_equal(target, wanted)


def test_a_scribble_is_four_clicks_and_one_step(phantom, session):
    drawn = np.zeros(phantom.volume.array.shape, dtype=np.uint8)
    d, h, w = (int(v) for v in phantom.inside.as_array())
    drawn[d, h, w - 4 : w + 5] = 1
    session.add_scribble_interaction(drawn, True)
    ((clicks, _),) = session._predictions
    assert [c.position.w - w for c in clicks] == [-2, -1, 1, 2]
    assert session.undo()
    assert session._predictions == []


def test_what_cannot_be_done_is_said(phantom, model, session):
    with pytest.raises(ConfigError, match="set_image first"):
        nnInteractiveInferenceSession(model).undo()
    with pytest.raises(ConfigError, match="one channel"):
        session.set_image(np.zeros((4, 4, 4)))
    with pytest.raises(ConfigError, match="spacing_mm"):
        session.set_image(np.zeros((1, 4, 4, 4)), spacing_mm=(1, 0, 1))
    with pytest.raises(ConfigError, match="target buffer"):
        session.set_target_buffer(np.zeros((2, 2, 2)))
    with pytest.raises(ConfigError, match="click inside"):
        session.add_initial_seg_interaction(np.zeros((2, 2, 2)))
    with pytest.raises(ClickError, match="outside the scan"):
        session.add_point_interaction((0, 0, 99), True, run_prediction=False)
    with pytest.raises(ClickError, match="half-open"):
        session.add_bbox_interaction([[1, 1], [0, 2], [0, 2]], True)
    with pytest.raises(ClickError, match="drawing"):
        session.add_lasso_interaction(np.zeros(phantom.volume.array.shape), True)
    with pytest.raises(ClickError, match="no click inside"):
        session.add_point_interaction((1, 1, 1), False)
    session.add_point_interaction(tuple(phantom.inside.as_array()), True)
