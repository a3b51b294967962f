"""A script for nnInteractive runs on our models."""

import numpy as np
import pytest
import SimpleITK
import torch
from scipy import ndimage

from clickvol import Box, Click, GivenMask, Lasso, Scribble, nnInteractiveInferenceSession, segment
from clickvol.errors import ClickError, ConfigError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import write_volume
from clickvol.io.volume import Volume
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.phantoms.phantom import make_phantom
from clickvol.prompts.packed_mask import PackedMask
from reference.random_models import random_model, write_random_model

SPACING = (4.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def model():
    return random_model(promise3d_recipe("clickvol", "tiny"))


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


@pytest.mark.parametrize("kind", ["bbox", "scribble", "lasso"])
def test_what_is_drawn_is_the_prompt_of_that_kind(phantom, model, session, kind):
    target = np.zeros(phantom.volume.array.shape, dtype=np.uint8)
    session.set_target_buffer(target)
    d, h, w = (int(v) for v in phantom.inside.as_array())
    ranges = [[d, d + 1], [h - 3, h + 4], [w - 3, w + 4]]
    drawn = np.zeros_like(target)
    drawn[d, h - 3 : h + 4, w - 3 : w + 4] = 1
    if kind == "bbox":
        prompt = Box(VoxelPoint(d, h - 3, w - 3), VoxelPoint(d, h + 3, w + 3))
        changed = session.add_bbox_interaction(ranges, True)
    else:
        prompt = {"scribble": Scribble, "lasso": Lasso}[kind](PackedMask.of(drawn))
        add = getattr(session, f"add_{kind}_interaction")
        changed = add(np.ones((1, 7, 7)), True, interaction_bbox=ranges)
    wanted = segment(as_lps(phantom), [prompt], model).mask.array
    np.testing.assert_array_equal(target, wanted)
    places = np.argwhere(wanted)
    assert changed == np.stack([places.min(0), places.max(0) + 1], axis=1).tolist()
    session.reset_interactions()
    if kind != "bbox":
        add(drawn, True)
        np.testing.assert_array_equal(target, wanted)


def test_an_initial_segmentation_is_corrected(phantom, model, session):
    target = np.zeros(phantom.volume.array.shape, dtype=np.uint8)
    session.set_target_buffer(target)
    d, h, w = (int(v) for v in phantom.inside.as_array())
    given = np.zeros_like(target)
    given[d : d + 2, h - 3 : h + 3, w - 3 : w + 3] = 1
    assert session.add_initial_seg_interaction(given) == [[d, d + 2], [h - 3, h + 3], [w - 3, w + 3]]
    np.testing.assert_array_equal(target, given)
    session.add_point_interaction((d, h + 4, w), True)
    prompts = [GivenMask(PackedMask.of(given)), Click(VoxelPoint(d, h + 4, w))]
    np.testing.assert_array_equal(target, segment(as_lps(phantom), prompts, model).mask.array)
    assert session.undo()
    np.testing.assert_array_equal(target, given)


def test_the_words_of_their_example_are_taken(phantom, model):
    options = {"use_torch_compile": False, "verbose": False, "torch_n_threads": 2, "do_autozoom": True}
    options["use_pinned_memory"] = True
    session = nnInteractiveInferenceSession(model, device=torch.device("cpu"), **options)
    session.set_do_autozoom(False)
    session.set_image(phantom.volume.array[None], {"spacing": SPACING}, modality="CT")
    target = torch.zeros(phantom.volume.array.shape, dtype=torch.uint8)
    session.set_target_buffer(target)
    place = tuple(phantom.inside.as_array().astype(int))
    assert session.add_point_interaction(place, True, run_prediction=False) is None
    assert not target.any()
    assert session._predict() is not None
    wanted = segment(as_lps(phantom), [Click(VoxelPoint.of(place))], model).mask.array
    np.testing.assert_array_equal(session.target_buffer.clone().numpy(), wanted)
    with pytest.raises(ConfigError, match="no option colour"):
        nnInteractiveInferenceSession(model, colour=1)


# The example of nnInteractive's README (version 1.1, Apache-2.0), line by line but for its comments: what
# imports the session, downloads weights and names a GPU is ours; names in capitals are set by the test.
THEIR_EXAMPLE = """
import os
import torch
import SimpleITK as sitk

from clickvol import nnInteractiveInferenceSession

session = nnInteractiveInferenceSession(
    device=torch.device("cuda:0" if torch.cuda.is_available() else "cpu"),
    use_torch_compile=False,
    verbose=False,
    torch_n_threads=os.cpu_count(),
    do_autozoom=True,
    use_pinned_memory=True,
)

model_path = os.path.join(DOWNLOAD_DIR, MODEL_NAME)
session.initialize_from_trained_model_folder(model_path)

input_image = sitk.ReadImage(FILENAME)
img = sitk.GetArrayFromImage(input_image)[None]

if img.ndim != 4:
    raise ValueError("Input image must be 4D with shape (1, x, y, z)")

session.set_image(img)

target_tensor = torch.zeros(img.shape[1:], dtype=torch.uint8)
session.set_target_buffer(target_tensor)

session.add_point_interaction(POINT_COORDINATES, include_interaction=True)
note(target_tensor)

session.add_point_interaction(OTHER_COORDINATES, include_interaction=False)
note(target_tensor)

session.add_bbox_interaction(BBOX_COORDINATES, include_interaction=True)
note(target_tensor)

session.add_scribble_interaction(SCRIBBLE_IMAGE, include_interaction=True)
note(target_tensor)

session.add_lasso_interaction(LASSO_IMAGE, include_interaction=True)
note(target_tensor)

results = session.target_buffer.clone()
results = target_tensor.clone()

session.set_target_buffer(torch.zeros(img.shape[1:], dtype=torch.uint8))

session.reset_interactions()

session.set_image(NEW_IMAGE)
session.set_target_buffer(torch.zeros(NEW_IMAGE.shape[1:], dtype=torch.uint8))
"""


def test_their_example_runs_as_it_stands(phantom, model, tmp_path):
    write_volume(phantom.volume.array, phantom.volume.grid, tmp_path / "scan.nii.gz")
    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "scan.nii.gz")))
    d, h, w = np.unravel_index(np.argmax(ndimage.distance_transform_edt(phantom.truth.array)), array.shape)
    scribble, lasso = np.zeros(array.shape, np.uint8), np.zeros(array.shape, np.uint8)
    scribble[d + 1, h, w - 3 : w + 4] = 1
    lasso[d - 1, h - 5 : h + 6, [w - 5, w + 5]] = 1
    lasso[d - 1, [h - 5, h + 5], w - 5 : w + 6] = 1
    box = [[d, d + 1], [h - 6, h + 7], [w - 6, w + 7]]
    masks = []
    names = {
        "DOWNLOAD_DIR": str(tmp_path),
        "MODEL_NAME": write_random_model(promise3d_recipe("clickvol", "tiny"), tmp_path).name,
        "FILENAME": str(tmp_path / "scan.nii.gz"),
        "POINT_COORDINATES": (d, h, w),
        "OTHER_COORDINATES": (d, 1, 1),
        "BBOX_COORDINATES": box,
        "SCRIBBLE_IMAGE": scribble,
        "LASSO_IMAGE": lasso,
        "NEW_IMAGE": array[None, :, 2:, 2:],
        "note": lambda target: masks.append(target.numpy().copy()),
    }
    exec(THEIR_EXAMPLE, names)
    prompts = [Click(VoxelPoint(d, h, w)), Click(VoxelPoint(d, 1, 1), False)]
    prompts.append(Box(VoxelPoint(d, h - 6, w - 6), VoxelPoint(d, h + 6, w + 6)))
    prompts.append(Scribble(PackedMask.of(scribble > 0)))
    filled = np.zeros(array.shape, dtype=bool)
    filled[d - 1] = ndimage.binary_fill_holes(lasso[d - 1])
    prompts.append(Lasso(PackedMask.of(filled)))
    # They give no spacing, so that a voxel is 1 mm wide.
    scan = Volume(array, VolumeGrid.axial(array.shape, (1.0, 1.0, 1.0)))
    for count, mask in enumerate(masks, start=1):
        assert np.array_equal(mask, segment(scan, prompts[:count], model).mask.array), count
        assert mask.any()
    assert np.array_equal(names["results"].numpy(), masks[-1])
    assert not names["session"].target_buffer.any()
    assert names["session"].preferred_scribble_thickness[0] > 0


def test_what_cannot_be_done_is_said(phantom, model, session):
    with pytest.raises(ConfigError, match="set_image first"):
        nnInteractiveInferenceSession(model).undo()
    with pytest.raises(ConfigError, match="one channel"):
        session.set_image(np.zeros((4, 4, 4)))
    with pytest.raises(ConfigError, match="none of them 0"):
        session.set_image(np.zeros((1, 4, 4, 4)), spacing_mm=(1, 0, 1))
    with pytest.raises(ConfigError, match="target buffer"):
        session.set_target_buffer(np.zeros((2, 2, 2)))
    with pytest.raises(ClickError, match="segmentation has shape"):
        session.add_initial_seg_interaction(np.zeros((2, 2, 2)))
    with pytest.raises(ClickError, match="outside the scan"):
        session.add_point_interaction((0, 0, 99), True, run_prediction=False)
    with pytest.raises(ClickError, match="half-open"):
        session.add_bbox_interaction([[1, 1], [0, 2], [0, 2]], True)
    with pytest.raises(ClickError, match="lasso is empty"):
        session.add_lasso_interaction(np.zeros(phantom.volume.array.shape), True)
    assert session.add_point_interaction((1, 1, 1), False) is None  # it waits
    session.add_point_interaction(tuple(phantom.inside.as_array()), True)
