"""The network on fields of view, with random weights: what is kept, and what is left out."""

import numpy as np
import pytest

from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.patch_predictor import PatchPredictor, num_bytes
from clickvol.predict.placed_prompts import PlacedPrompts
from clickvol.predict.segmentation import Stopwatch
from clickvol.prompts.click import Click
from reference.random_models import random_model

CENTRE = WorldPointRAS(19.5, 19.5, 19.5)  # of voxels 19 and 20
FIELD = FieldOfView(CENTRE, 1.0, (32, 32, 32))
GRID = VolumeGrid.along_patient((40, 40, 40), 1.0, CENTRE)


def placed(*places, excluded=None):
    return PlacedPrompts.of([Click(place) for place in places], GRID, knows_hints=False, excluded=excluded)


CLICK = placed(CENTRE)


@pytest.fixture(scope="module")
def model():
    return random_model(sam3d_adapter_recipe("released", "tiny"))


@pytest.fixture(scope="module")
def scan(model):
    array = np.random.default_rng(0).normal(40, 30, (40, 40, 40)).astype(np.float32)
    return NormalisedScan.of(Volume(array, GRID, "CT"), model)


@pytest.fixture
def patches(scan, model):
    return PatchPredictor(scan, model, max_bytes=10**9)


def test_the_same_field_of_view_is_encoded_once(patches):
    kept = []
    for _ in range(2):
        patches.probability(FIELD, CLICK, Stopwatch())
        kept.append((patches.num_bytes, list(map(id, patches._views.values()))))
    assert kept[0] == kept[1]
    assert len(kept[0][1]) == 1


def test_only_the_view_at_hand_is_kept_where_there_is_no_memory(scan, model, patches):
    tight = PatchPredictor(scan, model, max_bytes=0)
    other = FieldOfView(CENTRE, 2.0, (32, 32, 32))
    for field in (FIELD, other, FIELD):
        one, two = (p.probability(field, CLICK, Stopwatch()) for p in (tight, patches))
        np.testing.assert_array_equal(one, two)
    assert list(tight._views) == [FIELD]
    assert list(patches._views) == [other, FIELD]
    assert patches.num_bytes == sum(map(num_bytes, patches._views.values()))


def test_a_prior_is_told_to_the_network_from_minus_1_to_1(model, patches, monkeypatch):
    told, decode = [], model.network.decode
    monkeypatch.setattr(model.network, "decode", lambda *words: (told.append(words[2]), decode(*words[:2]))[1])
    prior = np.zeros(FIELD.shape_dhw, dtype=np.float32)
    prior[3, 4, 5:8] = 0.25, 0.5, 1.0
    patches.probability(FIELD, CLICK, Stopwatch(), prior=prior)
    (given,) = told
    assert given.shape == (1, 1, *FIELD.shape_dhw)
    assert given[0, 0, 3, 4, 4:9].tolist() == [-1.0, -0.5, 0.0, 1.0, -1.0]


def test_it_is_zero_outside_the_scan(patches):
    # 8 of 32 planes lie below the scan: the patch is centred on its first plane but 8.
    low = FieldOfView(WorldPointRAS(19.5, 19.5, 7.5), 1.0, (32, 32, 32))
    probability = patches.probability(low, CLICK, Stopwatch())
    assert np.flatnonzero(probability.any(axis=(1, 2))).tolist() == list(range(8, 32))


def test_it_is_zero_where_other_objects_are(patches):
    exclude = np.zeros((40, 40, 40), dtype=bool)
    exclude[:, :, 20:] = True
    free = patches.probability(FIELD, CLICK, Stopwatch())
    left = patches.probability(FIELD, placed(CENTRE, excluded=exclude), Stopwatch())
    np.testing.assert_array_equal(left[:, :, :16], free[:, :, :16])
    assert free[:, :, 16:].all()
    assert not left[:, :, 16:].any()


def test_clicks_outside_the_patch_are_left_out(patches):
    away, near = (placed(CENTRE, WorldPointRAS(19.5, 19.5, z)) for z in (36.0, 30.0))
    alone, with_away, with_near = (
        patches.probability(FIELD, clicks, Stopwatch()) for clicks in (CLICK, away, near)
    )
    np.testing.assert_array_equal(alone, with_away)
    assert not np.array_equal(alone, with_near)
