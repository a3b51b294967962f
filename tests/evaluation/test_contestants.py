from dataclasses import fields, replace

import numpy as np
import pytest

from clickvol.evaluation.contestants import (
    Answer,
    AsItIs,
    AutomaticModel,
    KeptUnderClicks,
    PromptableModel,
    Scan,
)
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.volume import Mask, Volume
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.tags import tags_recipe
from clickvol.predict.scan_predictor import segment
from clickvol.prompts.click import Click
from reference.evaluation_sets import oblique_grid
from reference.random_models import random_model


class FixedMask:
    fingerprint = "fixed"
    takes_organ_mask = False

    def __init__(self, mask):
        self.mask, self.calls = mask, 0

    def mask_of(self, scan):
        self.calls += 1
        return Answer(self.mask, 2.0)


@pytest.fixture
def scan():
    array = np.random.default_rng(0).normal(0, 100, (8, 16, 16)).astype(np.float32)
    volume = Volume(array, oblique_grid(array.shape, (4.0, 4.0, 4.0)), "CT", "/data/images/x.nii")
    return Scan.blind("data", "x", volume)


def click(d, h, w, *, foreground=True):
    return Click(VoxelPoint(float(d), float(h), float(w)), foreground)


def test_a_blind_scan_does_not_say_where_it_came_from(scan):
    assert scan.volume.source == ""
    assert scan.volume.notes == ()
    assert scan.volume.modality == "CT"
    assert {field.name for field in fields(scan)} == {"data", "case_id", "volume", "organ"}
    assert scan.organ is None


def test_a_promptable_model_answers_as_segment_does(scan):
    model = random_model(promise3d_recipe("clickvol", "tiny"))
    contestant = PromptableModel("tiny", model)
    clicks = (click(4, 8, 8), click(2, 3, 3, foreground=False))
    opened = contestant.open_scan(scan)
    first = opened.answer(clicks[:1])
    second = opened.answer(clicks)
    assert np.array_equal(first.mask, segment(scan.volume, clicks[:1], model).mask.array)
    assert np.array_equal(second.mask, segment(scan.volume, clicks, model).mask.array)
    assert first.seconds > 0
    assert contestant.takes_clicks


def test_a_model_that_looks_at_an_organ_is_given_it(scan):
    model = random_model(tags_recipe("clickvol", "tiny"))
    contestant = PromptableModel("tags", model)
    assert contestant.takes_organ_mask
    array = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    array[2:6, 4:12, 4:12] = 1
    organ = Mask(array, scan.volume.grid)
    clicks = (click(4, 8, 8),)
    shown = contestant.open_scan(replace(scan, organ=organ)).answer(clicks).mask
    blind = contestant.open_scan(scan).answer(clicks).mask
    with_organ = segment(scan.volume, clicks, model, organ_mask=organ).mask.array
    assert np.array_equal(shown, with_organ)
    assert np.array_equal(blind, segment(scan.volume, clicks, model).mask.array)
    assert not np.array_equal(shown, blind)


def test_a_model_of_the_scan_alone_takes_no_organ():
    model = random_model(promise3d_recipe("clickvol", "tiny"))
    assert not PromptableModel("tiny", model).takes_organ_mask
    source = AutomaticModel(model)
    assert not AsItIs("a", source).takes_organ_mask
    assert not KeptUnderClicks("a + click", source).takes_organ_mask


def test_an_automatic_model_works_once_per_scan(scan, monkeypatch):
    calls, masks = [], []

    def answer(volume, clicks, model, *, organ_mask):
        calls.append(clicks)
        masks.append(organ_mask)
        return segment(volume, [click(4, 8, 8)], model)

    monkeypatch.setattr("clickvol.evaluation.contestants.segment", answer)
    source = AutomaticModel(random_model(promise3d_recipe("clickvol", "tiny")))
    for contestant in (AsItIs("a", source), KeptUnderClicks("a + click", source)):
        contestant.open_scan(scan).answer(() if not contestant.takes_clicks else (click(4, 8, 8),))
    assert calls == [[]]
    AsItIs("a", source).open_scan(Scan.blind("data", "y", scan.volume)).answer(())
    assert calls == [[], []]
    assert masks == [None, None]
    organ = Mask(np.ones(scan.volume.grid.shape_dhw, np.uint8), scan.volume.grid)
    AsItIs("a", source).open_scan(replace(scan, organ=organ)).answer(())
    assert masks[2] is organ


def test_as_it_is_the_mask_is_whole_and_under_clicks_only_their_parts(scan):
    mask = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    mask[0:2, 0:2, 0:2] = mask[4:6, 4:6, 4:6] = mask[7, 15, 15] = 1
    source = FixedMask(mask)
    whole = AsItIs("a", source).open_scan(scan).answer(())
    assert np.array_equal(whole.mask, mask)
    assert whole.seconds == 2.0
    kept = KeptUnderClicks("a + click", source).open_scan(scan)
    one = kept.answer((click(5, 5, 5),))
    assert one.mask.sum() == 8
    assert one.mask[4, 4, 4] == 1
    assert one.seconds >= 2.0
    two = kept.answer((click(5, 5, 5), click(0, 0, 0), click(7, 15, 15, foreground=False)))
    assert two.mask.sum() == 16


def test_where_no_part_is_under_the_click_the_nearest_is_kept(scan):
    mask = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    mask[3, 3, 3:6] = mask[3, 9, 3:6] = 1
    kept = KeptUnderClicks("a + click", FixedMask(mask)).open_scan(scan)
    # Beyond the box around both parts, on the side of the second one.
    assert kept.answer((click(3, 14, 4),)).mask[3].sum(axis=1).nonzero()[0].tolist() == [9]


def test_an_empty_mask_stays_empty_under_a_click(scan):
    empty = np.zeros(scan.volume.grid.shape_dhw, np.uint8)
    kept = KeptUnderClicks("a + click", FixedMask(empty)).open_scan(scan)
    assert not kept.answer((click(3, 3, 3),)).mask.any()
