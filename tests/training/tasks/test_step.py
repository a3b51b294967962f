from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from clickvol.datasets.sampling import PatchSampling, PublishedSampling
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.tags import tags_recipe, with_text_width
from clickvol.training.tasks.alignment_loss import alignment_loss
from clickvol.training.tasks.step import TrainingStep
from reference.training_batches import training_batch


def make_step(seed=3, preset="clickvol", **sampling):
    torch.manual_seed(1)
    recipe = promise3d_recipe(preset, "tiny")
    network = LiftedSegmenter(recipe.network)
    return TrainingStep(network, recipe, PatchSampling(**sampling), seed)


def prompts_of(step, batch, numbers, monkeypatch):
    """Return the labels of the clicks in every decoding."""
    seen = []
    original = LiftedSegmenter.decode

    def record(self, encoded, prompts, prior=None):
        seen.append((prompts.points_dhw.clone(), prompts.labels.clone()))
        return original(self, encoded, prompts, prior)

    with monkeypatch.context() as patch:
        patch.setattr(LiftedSegmenter, "decode", record)
        step(batch, numbers)
    return seen


def test_what_is_drawn_belongs_to_the_sample_not_to_its_place_in_a_batch(monkeypatch):
    step = make_step(preset="released")
    both = prompts_of(step, training_batch(2), 0, monkeypatch)[-1]
    second = prompts_of(step, training_batch(2, only=1), 0, monkeypatch)[-1]
    assert torch.equal(both[0][1:], second[0])
    assert torch.equal(both[1][1:], second[1])
    assert not torch.equal(both[0][0], both[0][1])


def test_corrections_follow_one_another_into_free_slots(monkeypatch):
    step = make_step(corrected_click_share=1.0, max_corrected_clicks=3)
    counts = set()
    for number in range(12):
        batch = training_batch(2)
        seen = prompts_of(step, batch, number, monkeypatch)
        clicks = [(labels != -1).sum(1).tolist() for _, labels in seen]
        # One decoding per correction, and the last one, that counts.
        assert clicks == [[1 + n, 1 + n] for n in range(len(seen))]
        counts.add(len(seen) - 1)
    assert counts == {1, 2, 3}


def test_a_correction_lies_in_the_error_and_has_its_sign(monkeypatch):
    step = make_step(corrected_click_share=1.0)
    batch = training_batch(2)
    (_, _), (points, labels) = prompts_of(step, batch, 0, monkeypatch)
    for sample in range(2):
        d, h, w = points[sample, 1].int().tolist()
        assert labels[sample, 1] == batch.label[sample, 0, d, h, w]


def test_the_loss_is_the_mean_over_the_samples():
    step = make_step(corrected_click_share=0.0)
    whole, _, _ = step(training_batch(2), 0)
    parts = [step(training_batch(2, only=n), 0)[0].item() for n in range(2)]
    np.testing.assert_allclose(whole.item(), np.mean(parts), rtol=1e-5)
    assert abs(parts[0] - parts[1]) > 1e-4


def test_weights_are_chosen_by_ten_clicks_inside(monkeypatch):
    step = make_step(preset="released").eval()
    batch = training_batch(2)
    (points, labels), *_ = prompts_of(step, batch, 0, monkeypatch)
    assert points.shape == (2, 10, 3)
    assert (labels == 1).all()
    d, h, w = points[1].long().T
    assert batch.label[1, 0, d, h, w].all()
    step.train()
    (points, labels), *_ = prompts_of(step, batch, 0, monkeypatch)
    assert points.shape == (2, 30, 3)


def test_tags_chooses_by_dice_and_alignment_together():
    torch.manual_seed(1)
    recipe = with_text_width(tags_recipe("no-organ-mask", "tiny"), 8)
    text = torch.nn.functional.normalize(torch.randn(8, 2), dim=0)
    network = LiftedSegmenter(recipe.network)
    sampling = PublishedSampling(kind="published")
    batch = training_batch(2, side=32)
    chosen, without = (
        TrainingStep(network, replace(recipe, loss=replace(recipe.loss, alignment=term)), sampling, 3, text)
        .eval()(batch, 0)[2]
        .item()
        for term in (recipe.loss.alignment, None)
    )
    encoded = network.encode_image(batch.patch)
    aligning = alignment_loss(encoded.aligned, text, batch.label, recipe.loss.alignment).item()
    assert aligning > 0.1
    np.testing.assert_allclose(chosen, without + aligning, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of what torch itself does while it follows the code
def test_a_compiled_step_is_the_same_and_is_compiled_whole(monkeypatch):
    # Without code for a processor, which takes minutes; what torch cannot follow is an error.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    torch.manual_seed(1)
    recipe = promise3d_recipe("clickvol-prompts", "tiny")
    network = LiftedSegmenter(recipe.network)
    sampling = PatchSampling(corrected_click_share=1.0, max_corrected_clicks=1)
    results = []
    for compiled in (False, True):
        network.zero_grad()
        step = TrainingStep(network, recipe, sampling, 3, compiled=compiled)
        loss, figures, chosen_by = step(training_batch(2), 0)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        results.append([loss.detach(), figures, chosen_by, gradient])
    assert step.kind(0) == 1
    assert results[0][3].norm() > 1e-3
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
