"""The released test code's one window, against torch's interpolation, by a network that sees single voxels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clickvol.evaluation.methods import Scan, methods_of_model
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask, Volume
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.placed_prompts import WorldClick
from clickvol.predict.published_window import predict_published
from clickvol.predict.scan_predictor import ScanPredictor, segment
from clickvol.predict.segmentation import Stopwatch
from clickvol.preprocessing.intensity import IntensityScale
from clickvol.prompts.click import Click
from clickvol.weights.card import FieldOfViewPlan, IntensityPlan
from clickvol.weights.load import load_model
from clickvol.weights.official.importing import import_checkpoint
from reference import seeded_official

# What the oracle does to values: the constants of the model that is asked.
PREPARE = {"value": lambda image: (image.clamp(-100, 200) - 50) / 75}

SCALE = IntensityScale(-100.0, 200.0, 50.0, 75.0, outside=50.0)


class VoxelNetwork:
    """Its logit of a voxel is three times the value there; remembers what it was given."""

    def __init__(self, side=64, num_channels=1):
        self.config = SimpleNamespace(
            patch_shape_dhw=(side,) * 3, num_channels=num_channels, is_automatic=False
        )
        self.patches, self.points = [], []

    def encode_image(self, patch):
        self.patches.append(patch.numpy())
        return patch

    def decode(self, encoded, prompts, prior=None):
        self.points.append(prompts.points_dhw.numpy())
        return torch.cat([torch.zeros_like(encoded[:, :1]), 3 * encoded[:, :1]], dim=1)


def model_of(network):
    card = SimpleNamespace(
        id="fake",
        fields_of_view=FieldOfViewPlan(first_voxel_mm=1.0, finest_voxel_mm=1.0, coarsest_voxel_mm=1.0),
        intensity=IntensityPlan(clip=(-100.0, 200.0), mean=50.0, deviation=75.0),
        modalities=["CT"],
    )
    return SimpleNamespace(network=network, card=card, device=torch.device("cpu"), precision=torch.float32)


def oracle(array, grid, clicks_dhw, side):
    """The released steps with torch alone: window, its start, and the probability on the scan's voxels."""
    factor = tuple(grid.spacing_dhw_mm.tolist())
    image = torch.from_numpy(array.astype(np.float32))[None, None]
    image = F.interpolate(
        image, scale_factor=factor, mode="trilinear", align_corners=False, recompute_scale_factor=False
    )
    image = PREPARE["value"](image)
    points = np.array(
        [
            [min(int((v + 0.5) * f), n - 1) for v, f, n in zip(c, factor, image.shape[2:], strict=True)]
            for c in clicks_dhw
        ]
    )
    start = (points.max(0) + points.min(0)) // 2 - side // 2
    window = torch.zeros(side, side, side)
    whole = torch.zeros_like(image)
    low = np.maximum(start, 0)
    high = np.minimum(start + side, image.shape[2:])
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    in_window = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    window[in_window] = image[(0, 0, *cut)]
    whole[(0, 0, *cut)] = torch.sigmoid(3 * window)[in_window]
    back = F.interpolate(whole, size=array.shape, mode="trilinear", align_corners=False)
    return window.numpy(), points - start, back[0, 0].numpy()


GEOMETRIES = [
    ((30, 90, 90), (3.0, 1.0, 1.0)),
    ((30, 90, 80), (5.0, 0.8, 0.7)),
    ((12, 40, 44), (10.0, 3.3, 2.1)),
    ((70, 100, 90), (1.0, 1.0, 1.0)),
    ((90, 120, 130), (0.6, 0.6, 0.55)),
    ((1, 200, 210), (4.0, 0.5, 0.5)),
    ((40, 40, 40), (0.9, 0.9, 0.9)),
    ((25, 130, 120), (2.5, 0.977, 0.977)),
]


@pytest.mark.parametrize(("shape", "spacing"), GEOMETRIES)
@pytest.mark.parametrize("num_clicks", [1, 3])
def test_window_points_and_probability_are_those_of_the_released_steps(shape, spacing, num_clicks):
    rng = np.random.default_rng([*shape, num_clicks])
    array = rng.normal(50, 90, shape).astype(np.int16)
    grid = VolumeGrid.axial(shape, spacing)
    clicks = [tuple(int(rng.integers(n)) for n in shape) for _ in range(num_clicks)]
    wanted_window, wanted_points, wanted = oracle(array, grid, clicks, 64)
    network = VoxelNetwork()
    scan = NormalisedScan(volume=Volume(array, grid, "CT"), modality="CT", scale=SCALE)
    placed = [WorldClick(grid.to_world(VoxelPoint.of(c)), foreground=True) for c in clicks]
    result = predict_published(scan, model_of(network), placed, 1.0, Stopwatch())
    np.testing.assert_allclose(network.patches[0][0, 0], wanted_window, atol=2e-4)
    np.testing.assert_array_equal(network.points[0][0], wanted_points)
    if num_clicks == 1:
        np.testing.assert_array_equal(network.points[0][0], [[32, 32, 32]])
    probability = np.zeros(shape, np.float32)
    probability[result.box.slices] = result.probability
    np.testing.assert_allclose(probability, wanted, atol=2e-4)
    assert len(result.views) == 1


def test_all_of_the_mask_counts_and_nothing_outside_the_window():
    array = np.full((40, 100, 100), -100, np.int16)
    array[5:8, 50:53, 50:53] = array[20:24, 60:70, 50:52] = array[20:24, 2:6, 50:52] = 200
    grid = VolumeGrid.axial(array.shape, (1.0, 1.0, 1.0))
    network = VoxelNetwork()
    predictor = ScanPredictor(Volume(array, grid, "CT"), model_of(network), procedure="published")
    result = predictor.predict([Click(VoxelPoint(6, 51, 51))])
    wanted = (array == 200).astype(np.uint8)
    wanted[:, 2:6] = 0
    np.testing.assert_array_equal(result.mask.array, wanted)
    assert result.procedure == "published"
    assert len(result.fields_of_view) == 1


def test_the_organ_mask_goes_the_same_way_and_stays_0_and_1():
    rng = np.random.default_rng(3)
    array = rng.normal(50, 90, (20, 80, 80)).astype(np.int16)
    grid = VolumeGrid.axial(array.shape, (3.0, 0.9, 0.9))
    organ = np.zeros(array.shape, np.uint8)
    organ[5:15, 20:60, 20:60] = 1
    scan = NormalisedScan(
        volume=Volume(array, grid, "CT"),
        modality="CT",
        scale=SCALE,
        organ_mask=Mask(organ, grid),
        num_channels=2,
    )
    network = VoxelNetwork(num_channels=2)
    click = WorldClick(grid.to_world(VoxelPoint(2, 40, 40)), foreground=True)
    predict_published(scan, model_of(network), [click], 1.0, Stopwatch())
    factor = tuple(grid.spacing_dhw_mm.tolist())
    whole = F.interpolate(
        torch.from_numpy(organ.astype(np.float32))[None, None],
        scale_factor=factor,
        mode="trilinear",
        recompute_scale_factor=False,
    )[0, 0]
    # The click's voxel is d 7, h 36, w 36; the window begins at -25, 4, 4.
    given = network.patches[0][0, 1]
    np.testing.assert_array_equal(given[25:], (whole[:39, 4:68, 4:68] > 0.5).numpy().astype(np.float32))
    assert not given[:25].any()


def test_a_window_that_lies_between_two_slices_gives_nothing():
    grid = VolumeGrid.axial((2, 60, 60), (60.0, 1.0, 1.0))
    scan = NormalisedScan(
        volume=Volume(np.full((2, 60, 60), 200, np.int16), grid, "CT"), modality="CT", scale=SCALE
    )
    click = WorldClick(grid.to_world(VoxelPoint(0.4, 30, 30)), foreground=True)
    result = predict_published(scan, model_of(VoxelNetwork(side=8)), [click], 1.0, Stopwatch())
    assert result.box == VoxelBox.whole((1, 1, 1))
    assert result.probability.tolist() == [[[0.0]]]


def turned(shape, spacing, degrees):
    """A grid whose axes are turned about two axes of the patient, with an offset and one axis reversed."""
    a, b = np.deg2rad(degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = (about_z @ about_x)[:, [2, 1, 0]] * np.multiply(spacing, (1, -1, 1))
    affine[:3, 3] = (-31.5, 82.25, 640.0)
    return VolumeGrid(shape, affine)


# Shape, spacing, turns in degrees, clicks (d, h, w): thick slices, thin ones, clicks at corners and edges, many
# whose middle is rounded, scans smaller than the window along one axis, two, and all.
CARD_GEOMETRIES = [
    ((41, 73, 69), (5.0, 0.74, 0.74), (0, 0), [(0, 0, 0)]),
    ((41, 73, 69), (5.0, 0.74, 0.74), (33, 0), [(40, 72, 68)]),
    ((66, 90, 84), (1.25, 0.9, 0.9), (12, -25), [(33, 44, 41), (60, 3, 80)]),
    ((19, 55, 61), (7.3, 2.2, 1.9), (-70, 41), [(9, 0, 30)]),
    ((80, 34, 36), (0.8, 1.7, 1.7), (5, 5), [(79, 33, 0), (0, 0, 35), (40, 16, 17)]),
    ((12, 30, 28), (1.1, 1.2, 0.9), (0, 90), [(6, 15, 14)]),
    ((3, 110, 95), (3.0, 0.6, 1.3), (45, 45), [(1, 109, 2), (2, 0, 94)]),
    ((57, 61, 59), (1.0, 1.0, 1.0), (0, 0), [(28, 60, 31), (29, 59, 30)]),
]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The card of an official file that was imported, with the published constants of colon."""
    folder = tmp_path_factory.mktemp("official")
    torch.save(seeded_official.make_checkpoint(seeded_official.TINY), folder / "best.pth.tar")
    return load_model(
        import_checkpoint(folder / "best.pth.tar", folder, dataset="colon").card_path, device="cpu"
    )


@pytest.mark.parametrize(("shape", "spacing", "degrees", "clicks"), CARD_GEOMETRIES)
def test_an_imported_card_asks_any_network_as_the_released_code_does(
    imported, shape, spacing, degrees, clicks, monkeypatch
):
    """A network that sees single voxels behind the card, by what everybody calls and an evaluation's method."""
    monkeypatch.setitem(PREPARE, "value", lambda image: (image.clamp(-57, 175) - 65.175035) / 32.651197)
    rng = np.random.default_rng([*shape, len(clicks)])
    array = rng.normal(60, 90, shape).astype(np.int16)
    grid = turned(shape, spacing, degrees)
    np.testing.assert_allclose(grid.spacing_dhw_mm, spacing)
    wanted_window, wanted_points, wanted = oracle(array, grid, clicks, 48)
    network = VoxelNetwork(side=48)
    model = replace(imported, network=network, precision=torch.float32)
    volume = Volume(array, grid, "CT")
    placed = [Click(VoxelPoint(*click)) for click in clicks]
    result = segment(volume, placed, model, procedure="published")
    np.testing.assert_allclose(network.patches[0][0, 0], wanted_window, atol=5e-4)
    np.testing.assert_array_equal(network.points[0][0], wanted_points)
    assert result.mask.array.shape == shape
    clear = np.abs(wanted - 0.5) > 1e-4
    np.testing.assert_array_equal(result.mask.array[clear], (wanted > 0.5)[clear])
    np.testing.assert_allclose(result.probability(), wanted, atol=2e-4)
    assert (result.procedure, len(network.patches)) == ("published", 1)
    # An evaluation asks an official card so by itself.
    (method,) = methods_of_model(model, "official")
    mask = method.open_scan(Scan.blind("set", "case", volume))(placed).mask
    np.testing.assert_array_equal(mask, result.mask.array)
    assert method.fingerprint.endswith(" published")


@pytest.mark.parametrize("dataset", ["kits", None])
def test_files_with_slices_first_are_given_slices_first(tmp_path, dataset, monkeypatch):
    """As KiTS stores them, i from head to foot: the released loader gives (i, j, k) of those files alone."""
    constants = IntensityPlan(clip=(-54.0, 247.0), mean=59.53867, deviation=55.457336)
    monkeypatch.setitem(PREPARE, "value", lambda image: (image.clamp(-54, 247) - 59.53867) / 55.457336)
    torch.save(seeded_official.make_checkpoint(seeded_official.TINY), tmp_path / "best.pth.tar")
    card = import_checkpoint(tmp_path / "best.pth.tar", tmp_path, dataset="kits").card_path
    model = load_model(card, device="cpu")
    assert model.card.intensity == constants
    if dataset is None:  # trained here, on constants of its own set
        plan = constants.model_copy(update={"deviation": 75.0})
        monkeypatch.setitem(PREPARE, "value", lambda image: (image.clamp(-54, 247) - 59.53867) / 75)
        model = replace(model, card=model.card.model_copy(update={"intensity": plan}))
    network = VoxelNetwork(side=48)
    model = replace(model, network=network, precision=torch.float32)
    stored = np.random.default_rng(4).normal(60, 90, (23, 70, 64)).astype(np.int16)  # i, j, k
    affine = np.array([[0, 0, -0.8, 40], [0, -0.9, 0, 30], [-3.0, 0, 0, 500], [0, 0, 0, 1]])
    volume = Volume(stored.transpose(2, 1, 0), VolumeGrid.from_ijk(stored.shape, affine), "CT")
    result = segment(volume, [Click(VoxelPoint(50, 11, 20))], model, procedure="published")
    axial = VolumeGrid.axial(stored.shape, (3.0, 0.9, 0.8))
    wanted_window, wanted_points, wanted = oracle(stored, axial, [(20, 11, 50)], 48)
    np.testing.assert_allclose(network.patches[0][0, 0], wanted_window, atol=5e-4)
    np.testing.assert_array_equal(network.points[0][0], wanted_points)
    np.testing.assert_allclose(result.probability(), wanted.transpose(2, 1, 0), atol=2e-4)


def test_an_organ_mask_is_turned_with_its_scan():
    rng = np.random.default_rng(8)
    array = rng.normal(50, 90, (21, 60, 66)).astype(np.int16)
    organ = (rng.random(array.shape) > 0.5).astype(np.uint8)
    axial = VolumeGrid.axial(array.shape, (3.0, 0.9, 0.8))
    order = (2, 0, 1)
    given = []
    for values, mask, grid in (
        (array, organ, axial),
        (array.transpose(order), organ.transpose(order), axial.permuted(order)),
    ):
        scan = NormalisedScan(
            volume=Volume(values, grid, "CT"),
            modality="CT",
            scale=SCALE,
            organ_mask=Mask(mask, grid),
            num_channels=2,
        )
        network = VoxelNetwork(side=32, num_channels=2)
        click = WorldClick(axial.to_world(VoxelPoint(2, 40, 40)), foreground=True)
        predict_published(scan, model_of(network), [click], 1.0, Stopwatch())
        given.append(network.patches[0])
    np.testing.assert_array_equal(given[0], given[1])
    assert 0.3 < given[0][0, 1].mean() < 0.7
