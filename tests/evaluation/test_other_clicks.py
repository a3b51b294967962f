"""What a network is told where the user clicked."""

import numpy as np
import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.methods import Scan, parse_methods
from clickvol.evaluation.other_clicks import OtherClicks
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.prompts.click import Click
from reference.random_models import random_model, write_random_model


@pytest.fixture
def told(monkeypatch):
    """The points that every network was told, as it was told them."""
    seen = []
    original = OtherClicks.decode

    def record(self, encoded, prompts, prior=None):
        inner = self.network.decode

        def spy(encoded, prompts, prior=None):
            seen.append(prompts.points_dhw.numpy())
            return inner(encoded, prompts, prior)

        self.network.decode = spy
        try:
            return original(self, encoded, prompts, prior)
        finally:
            del self.network.decode

    monkeypatch.setattr(OtherClicks, "decode", record)
    return seen


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return write_random_model(sam3d_adapter_recipe("released", "tiny"), tmp_path_factory.mktemp("model"))


def scan_named(case_id):
    array = np.random.default_rng(0).normal(0, 100, (30, 40, 40)).astype(np.float32)
    return Scan.blind("data", case_id, Volume(array, VolumeGrid.axial(array.shape, (2.0, 2.0, 2.0)), "CT"))


def answer(method, case_id="a", voxel=(12, 20, 20)):
    return method.open_scan(scan_named(case_id))([Click(VoxelPoint(*voxel))]).mask


def test_a_random_voxel_of_the_window_is_told_the_same_for_the_same_scan_and_click(told, card):
    (method,) = parse_methods([f"x=random-click:{card}"], device="cpu")
    first, again = answer(method), answer(method)
    assert (first == again).all()
    others = [answer(method, "b"), answer(method, "a", (13, 20, 20))]
    assert len(others) == 2
    (a, b, c, d) = (points[0, 0].tolist() for points in told)
    assert a == b
    assert len({tuple(a), tuple(c), tuple(d)}) == 3
    side = random_model(sam3d_adapter_recipe("released", "tiny")).network.config.patch_shape_dhw[0]
    assert all(0 <= value < side and value == int(value) for point in (a, c, d) for value in point)


def test_without_a_click_nothing_is_told_at_the_same_place(told, card):
    methods = parse_methods([f"x=no-click:{card}", f"y={card}"], device="cpu", procedure="published")
    masks = [answer(method) for method in methods]
    assert told[0].shape == (1, 0, 3)
    assert masks[0].shape == masks[1].shape
    assert (masks[0] != masks[1]).any()
    assert len({method.fingerprint for method in methods}) == 2


def test_a_model_without_clicks_can_be_told_no_others(tmp_path):
    card = write_random_model(sam3d_adapter_recipe("automatic", "tiny"), tmp_path)
    with pytest.raises(ConfigError, match="takes no clicks, so it can be told no others"):
        parse_methods([f"random-click:{card}"], device="cpu")
