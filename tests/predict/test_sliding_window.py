"""A network without clicks over whole scans, against a plain loop over windows and on hand-made scans."""

import itertools
import json
import math
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from clickvol import Click, InteractiveSession, segment
from clickvol.cli.app import main
from clickvol.errors import ClickError, ConfigError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.preprocessing.intensity import intensity_scale, value_sample
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.weights.card import FieldOfViewPlan, IntensityPlan
from reference.grids import make_grid
from reference.random_models import random_model, write_random_model

# The tiny recipe, at half its patch: 64 windows cost as much as 8 of the recipe's own.
RECIPE = sam3d_adapter_recipe("automatic", "tiny")
RECIPE = replace(RECIPE, network=replace(RECIPE.network, patch_shape_dhw=(32, 32, 32)))
SIDE = 32
VOXEL_MM = 4.0
NO_CLICKS = PointPrompts(torch.zeros(1, 0, 3), torch.zeros(1, 0, dtype=torch.int64))
# Axes of the patient, so that the scan's voxels are those of the windows.
UPRIGHT = ((2, 1, 0), (1, 1, 1))


@pytest.fixture(scope="module")
def random():
    return random_model(RECIPE)


@pytest.fixture(scope="module")
def bright():
    """A network whose weights are set so that what is brighter than the mean of its window is the object.

    Everything but the image itself has weight 0, and the decoder works on every second voxel. Windows of
    256 mm see all of a scan that matters.
    """
    config = sam3d_adapter_recipe("automatic", "tiny").network
    config = replace(config, decoder=replace(config.decoder, decoder_stride=2))
    model = random_model(replace(RECIPE, network=config))
    decoder = model.network.mask_decoder
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        decoder.join.weight[0, -1, 1, 1, 1] = 1
        decoder.join.weight[1, -1, 1, 1, 1] = -1
        decoder.classify.weight[1, 0, 1, 1, 1] = 4
        decoder.classify.weight[0, 1, 1, 1, 1] = 16
    return model


def noisy_scan(shape, order=UPRIGHT[0], signs=UPRIGHT[1], **placed):
    array = np.random.default_rng(0).normal(40, 80, shape).astype(np.float32)
    grid = make_grid(shape, (VOXEL_MM,) * 3, order=order, signs=signs, **placed)
    return Volume(array, grid, "CT")


def normalised(volume):
    return intensity_scale("CT", value_sample(volume)).normalise(volume.array)


def starts(length):
    """Return where windows begin: every half window, and one at the end."""
    return [min(16 * i, length - SIDE) for i in range(math.ceil((length - SIDE) / 16) + 1)]


def weight(z, y, x):
    """Return the Gaussian weight of a place in the window: deviation an eighth of its side, not below 1e-3."""
    squared = sum((c - (SIDE - 1) / 2) ** 2 for c in (z, y, x))
    return max(math.exp(-squared / (2 * (SIDE / 8) ** 2)), 1e-3)


def plain_loop(model, image):
    """Return the stitched probability, window by window."""
    weights = np.array([weight(*place) for place in itertools.product(range(SIDE), repeat=3)]).reshape(
        (SIDE,) * 3
    )
    total, share = np.zeros(image.shape), np.zeros(image.shape)
    for corner in itertools.product(*map(starts, image.shape)):
        window = tuple(slice(a, a + SIDE) for a in corner)
        with torch.inference_mode():
            logits = model.network(torch.from_numpy(image[window])[None, None], NO_CLICKS)[0]
        total[window] += weights * torch.softmax(logits, dim=0)[1].numpy()
        share[window] += weights
    return total / share


def test_the_stitched_probability_is_the_plain_loop(random):
    volume = noisy_scan((52, 32, 40))
    result = segment(volume, [], random)
    expected = plain_loop(random, normalised(volume))
    assert expected.std() > 0.01
    np.testing.assert_allclose(result.probability(), expected, atol=1e-4)
    np.testing.assert_array_equal(result.mask.array, result.probability() > 0.5)
    assert result.clicks == ()
    assert set(result.seconds) == {"prepare", "encode", "decode", "paste"}


def test_every_window_is_reported(random):
    volume = noisy_scan((52, 32, 40), at=(100, -50, 7))
    views = segment(volume, [], random).fields_of_view
    assert len(views) == 3 * 1 * 2
    # Centres: half a window less half a voxel from the first voxel, in x, y, z.
    x, y, z = ((SIDE - 1) / 2 * VOXEL_MM + start for start in (100, -50, 7))
    assert views[0].centre_ras_mm == pytest.approx((x, y, z))
    assert views[-1].centre_ras_mm == pytest.approx((x + 8 * 4, y, z + 20 * 4))
    assert {view.voxel_mm for view in views} == {4.0}
    assert {view.extent_dhw_mm for view in views} == {(128.0, 128.0, 128.0)}


@pytest.mark.parametrize("shape", [(1, 32, 32), (7, 20, 31), (1, 1, 1), (5, 40, 3)])
def test_a_scan_smaller_than_the_window_is_padded_with_the_outside(random, shape):
    volume = noisy_scan(shape)
    result = segment(volume, [], random)
    before = [(max(SIDE - n, 0)) // 2 for n in shape]
    around = [(a, max(SIDE - n, 0) - a) for a, n in zip(before, shape, strict=True)]
    scale = intensity_scale("CT", value_sample(volume))
    outside = float(scale.normalise(np.float32(scale.outside)))
    image = np.pad(normalised(volume), around, constant_values=outside)
    expected = plain_loop(random, image)
    inner = tuple(slice(a, a + n) for a, n in zip(before, shape, strict=True))
    np.testing.assert_allclose(result.probability(), expected[inner], atol=1e-4)


@pytest.mark.parametrize(
    ("order", "signs"),
    [((0, 1, 2), (1, -1, -1)), ((1, 2, 0), (-1, 1, -1)), ((2, 0, 1), (-1, -1, 1))],
)
def test_a_turned_copy_of_a_scan_has_the_turned_answer(random, order, signs):
    upright = noisy_scan((36, 33, 40))
    expected = segment(upright, [], random).probability()
    # Axis a of the copy runs along world axis order[a]; axis 2 - order[a] of the upright scan does.
    array = upright.array.transpose([2 - axis for axis in order])
    array = array[tuple(slice(None, None, sign) for sign in signs)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * VOXEL_MM
        if signs[axis] < 0:
            affine[order[axis], 3] = (array.shape[axis] - 1) * VOXEL_MM
    turned = Volume(np.ascontiguousarray(array), VolumeGrid(array.shape, affine), "CT")
    result = segment(turned, [], random).probability()
    expected = expected.transpose([2 - axis for axis in order])
    expected = expected[tuple(slice(None, None, sign) for sign in signs)]
    np.testing.assert_allclose(result, expected, atol=1e-4)


def read_at(array, places, outside, reach):
    """Read an array at (..., 3) voxel places, linear; up to `reach` past the border as on it."""
    beyond = (places < -reach) | (places > np.array(array.shape) - 1 + reach)
    result = ndimage.map_coordinates(array, np.moveaxis(places, -1, 0), order=1, mode="nearest")
    return np.where(beyond.any(axis=-1), np.float32(outside), result)


def test_an_oblique_scan_is_resampled_along_the_patients_axes_and_back(random):
    grid = make_grid((30, 34, 28), (3, 3.5, 4), order=(1, 2, 0), degrees=(20, -15, 30), at=(5, 6, 7))
    volume = Volume(noisy_scan(grid.shape_dhw).array, grid, "CT")
    result = segment(volume, [], random).probability()
    turn, origin = grid.affine_ras_mm[:3, :3], grid.affine_ras_mm[:3, 3]
    centres = np.stack(np.meshgrid(*map(np.arange, grid.shape_dhw), indexing="ij"), axis=-1)
    centres = centres @ turn.T + origin
    low, high = centres.min(axis=(0, 1, 2)), centres.max(axis=(0, 1, 2))
    steps = np.ceil((high - low) / VOXEL_MM)
    assert (steps >= SIDE - 1).all()
    first = (low + high) / 2 - steps / 2 * VOXEL_MM
    lattice = np.meshgrid(*(np.arange(n + 1) for n in steps[::-1]), indexing="ij")
    places = first + VOXEL_MM * np.stack(lattice[::-1], axis=-1)
    scale = intensity_scale("CT", value_sample(volume))
    # Half a voxel of the lattice, which is the coarser of the two.
    reach = VOXEL_MM / 2 / grid.spacing_dhw_mm
    image = read_at(volume.array, (places - origin) @ np.linalg.inv(turn).T, scale.outside, reach)
    stitched = plain_loop(random, scale.normalise(image))
    back = ((centres - first) / VOXEL_MM)[..., ::-1]
    expected = read_at(stitched.astype(np.float32), back, 0.0, 1e-3)
    # A place half a voxel outside is read or not, as rounding will have it: few voxels.
    assert np.quantile(np.abs(result - expected), 0.99) < 1e-3


def two_balls(grid):
    """Return a scan with two balls of 35 mm radius, darker than any window's end around them."""
    axes = np.stack(np.meshgrid(*map(np.arange, grid.shape_dhw), indexing="ij"), axis=-1)
    places = axes @ grid.affine_ras_mm[:3, :3].T + grid.affine_ras_mm[:3, 3]
    middle = places.reshape(-1, 3).mean(axis=0)
    balls = [
        np.linalg.norm(places - (middle + away), axis=-1) < 35
        for away in ((-42.0, 20.0, 10.0), (42.0, -10.0, -20.0))
    ]
    return Volume(np.where(balls[0] | balls[1], 200.0, -300.0).astype(np.float32), grid, "CT"), balls


GRIDS = {
    "upright": make_grid((40, 50, 60), (4, 4, 4), order=(2, 1, 0), at=(10, 20, -30)),
    "flipped": make_grid((40, 60, 70), (4.5, 3, 3), order=(2, 1, 0), signs=(-1, -1, 1)),
    "permuted": make_grid((60, 40, 60), (3, 4.5, 3.3), order=(1, 2, 0), signs=(1, -1, -1)),
    "oblique": make_grid((40, 60, 60), (4.5, 3, 3), order=(2, 1, 0), degrees=(20, -15, 30)),
}


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("name", GRIDS)
def test_what_is_found_lands_in_place_on_any_grid(bright, name):
    volume, balls = two_balls(GRIDS[name])
    result = segment(volume, [], bright)
    assert result.mask.array.shape == volume.array.shape
    parts, count = ndimage.label(result.mask.array)
    assert count == 2
    for ball in balls:
        part = parts == parts[tuple(np.argwhere(ball).mean(axis=0).astype(int))]
        away = np.argwhere(part).mean(axis=0) - np.argwhere(ball).mean(axis=0)
        assert np.linalg.norm(away * volume.grid.spacing_dhw_mm) < 1.5
        # Whatever is a little brighter than the mean counts, so the balls come out too large.
        assert dice(part, ball) > 0.7


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_click_keeps_the_part_under_it(bright, chosen):
    volume, balls = two_balls(GRIDS["oblique"])
    middles = [np.argwhere(ball).mean(axis=0) for ball in balls]
    clicks = [Click(VoxelPoint(*middles[chosen]))]
    result = segment(volume, clicks, bright)
    assert dice(result.mask.array > 0, balls[chosen]) > 0.7
    assert not (result.mask.array > 0)[balls[1 - chosen]].any()
    assert result.clicks == tuple(clicks)
    both = segment(volume, [Click(VoxelPoint(*middle)) for middle in middles], bright)
    np.testing.assert_array_equal(both.mask.array, segment(volume, [], bright).mask.array)


def test_background_clicks(bright):
    volume, balls = two_balls(GRIDS["upright"])
    inside = Click(VoxelPoint(*np.argwhere(balls[0]).mean(axis=0)))
    background = Click(VoxelPoint(*np.argwhere(balls[1]).mean(axis=0)), foreground=False)
    with pytest.raises(ClickError, match="no click inside the object"):
        segment(volume, [background], bright)
    result = segment(volume, [inside, background], bright)
    assert result.warnings == ("random takes no clicks; those on the background were ignored",)
    np.testing.assert_array_equal(result.mask.array, segment(volume, [inside], bright).mask.array)


def test_nothing_found_is_an_empty_mask(bright, monkeypatch):
    monkeypatch.setattr("clickvol.predict.sliding_window.FAINT", 0.6)
    # Without any contrast both classes are as likely everywhere.
    volume = Volume(np.full((20, 30, 40), 40, np.float32), make_grid((20, 30, 40), (4,) * 3), "CT")
    card = bright.card.model_copy(update={"intensity": IntensityPlan(clip=(0, 80), mean=40, deviation=1)})
    result = segment(volume, [], replace(bright, card=card))
    assert result.mask.num_voxels == 0
    assert result.probability().max() == 0
    assert result.bounding_box() is None


def test_a_click_outside_the_scan_is_refused(random):
    with pytest.raises(ClickError, match="outside the scan"):
        segment(noisy_scan((8, 8, 8)), [Click(VoxelPoint(0, 0, 9))], random)


def test_a_session_of_clicks_needs_a_network_that_takes_them(random):
    with pytest.raises(ConfigError, match=r"random is automatic .* use segment\(\)"):
        InteractiveSession(random).set_volume(noisy_scan((8, 8, 8)))


def test_an_organ_mask_is_refused_where_the_network_takes_none(random):
    volume = noisy_scan((8, 8, 8))
    with pytest.raises(ConfigError, match="takes no organ mask"):
        segment(volume, [], random, organ_mask=volume)


def test_voxels_of_another_size_come_from_the_card(random):
    card = random.card.model_copy(
        update={"fields_of_view": FieldOfViewPlan(first_voxel_mm=8, finest_voxel_mm=2, coarsest_voxel_mm=8)}
    )
    views = segment(noisy_scan((80, 30, 30)), [], replace(random, card=card)).fields_of_view
    # 79 steps of 4 mm are 39.5 of 8 mm: 41 voxels, two windows.
    assert [view.voxel_mm for view in views] == [8.0, 8.0]


@pytest.fixture
def scan_file(tmp_path):
    array = np.random.default_rng(1).normal(40, 80, (20, 24, 16)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([4.0, 4, 4, 1])), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def test_the_command_line_needs_no_click(scan_file, tmp_path, capfd):
    card = write_random_model(RECIPE, tmp_path)
    mask, probability = tmp_path / "mask.nii.gz", tmp_path / "p.nii.gz"
    picture = tmp_path / "p.png"
    words = ("segment", scan_file, "--model", card, "-o", mask, "--json")
    words = (*words, "--probability", probability, "--preview", picture)
    assert main([str(word) for word in words]) == 0
    told = json.loads(capfd.readouterr().out)
    written = np.asarray(nibabel.load(mask).dataobj)
    likely = np.asarray(nibabel.load(probability).dataobj)
    assert written.shape == (20, 24, 16)
    np.testing.assert_array_equal(written > 0, likely > 0.5)
    assert told["voxels"] == written.sum()
    assert [view["reason"] for view in told["fields_of_view"]] == ["window slid over the scan"]
    assert picture.stat().st_size > 1000


def test_the_command_line_keeps_what_was_clicked(scan_file, tmp_path, capfd):
    card = write_random_model(RECIPE, tmp_path)
    mask = tmp_path / "mask.nii.gz"
    words = ("segment", scan_file, "--model", card, "-o", mask, "--quiet")
    assert main([str(word) for word in words]) == 0
    everything = np.asarray(nibabel.load(mask).dataobj) > 0
    assert main([*map(str, words), "--click", "3,4,5"]) == 0
    clicked = np.asarray(nibabel.load(mask).dataobj) > 0
    assert 0 < clicked.sum() <= everything.sum()
    assert not (clicked & ~everything).any()


def test_a_prompted_model_still_needs_a_click(scan_file, tmp_path, capfd):
    card = write_random_model(sam3d_adapter_recipe("released", "tiny"), tmp_path)
    words = ("segment", scan_file, "--model", card, "-o", tmp_path / "mask.nii.gz")
    assert main([str(word) for word in words]) == 2
    error = capfd.readouterr().err
    assert "there is no click inside the object; give at least one" in error
    assert not (tmp_path / "mask.nii.gz").exists()
