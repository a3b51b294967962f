import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.recipe import BoundaryTerm, LossRecipe
from clickvol.training.read_config import read_train_config
from clickvol.training.tasks.losses import boundary_loss, boundary_map, dice_loss, hard_dice, segmentation_loss
from clickvol.training.tasks.volume_task import VolumeTask
from reference.golden import GOLDEN
from reference.seeded_official import loss_cases
from reference.training_batches import training_batch

STRUCTURAL = LossRecipe()
RELEASED = promise3d_recipe("released", "tiny").loss
CASES = ("plain", "no_foreground", "touching_border")


def published(name):
    return json.loads((GOLDEN / "losses.json").read_text())[name]


@pytest.mark.parametrize("name", CASES)
def test_the_released_loss_is_the_published_one(name):
    logits, label = loss_cases()[name]
    expected = published(name)
    structural = segmentation_loss(logits, label, STRUCTURAL).item()
    total = segmentation_loss(logits, label, RELEASED).item()
    assert structural == pytest.approx(expected["structural"], abs=2e-6)
    assert total - structural == pytest.approx(expected["boundary_x10"], abs=4e-6)
    assert total == pytest.approx(expected["total"], abs=4e-6)
    assert dice_loss(logits, label).item() == pytest.approx(expected["validation"], abs=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_its_gradient_is_the_published_one(name):
    logits, label = loss_cases()[name]
    logits.requires_grad_()
    segmentation_loss(logits, label, RELEASED).backward()
    with np.load(GOLDEN / "loss_gradients.npz") as stored:
        expected = stored[f"loss_{name}_grad"]
    result = logits.grad[0, :, ::3, ::3, ::3].numpy()
    assert np.abs(expected).max() > 1e-5
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-9)


def dice_cross_entropy(logits, label):
    return segmentation_loss(logits, label, STRUCTURAL)


def sure_of(label):
    return 40 * (2 * torch.cat([1 - label, label], dim=1) - 1)


def ball(side):
    axes = torch.meshgrid(*[torch.arange(float(side))] * 3, indexing="ij")
    return (sum((axis - side / 2) ** 2 for axis in axes) < (side / 4) ** 2).float()[None, None]


def test_the_released_boundary_term_punishes_a_perfect_answer_for_the_faces_of_the_patch():
    label = ball(128)
    released = boundary_loss(sure_of(label), label, RELEASED.boundary).item()
    assert 10 * released == pytest.approx(0.032, abs=5e-4)
    repaired = boundary_loss(sure_of(label), label, BoundaryTerm()).item()
    assert repaired == pytest.approx(0, abs=1e-10)


def test_a_boundary_map_by_hand():
    row = torch.tensor([0.0, 0, 0, 1, 1]).view(1, 1, 1, 1, 5)
    inside = boundary_map(row, BoundaryTerm(kernel_dhw=(1, 1, 3)))
    assert inside.flatten().tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 0])
    zeros = boundary_map(row, BoundaryTerm(kernel_dhw=(1, 1, 3), border="zeros_counted"))
    assert zeros.flatten().tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_the_boundary_term_counts_samples_with_an_object_only():
    label = torch.cat([ball(12), torch.zeros_like(ball(12))])
    logits = torch.randn(2, 2, 12, 12, 12, generator=torch.Generator().manual_seed(3))
    alone = boundary_loss(logits[:1], label[:1], BoundaryTerm())
    both = boundary_loss(logits, label, BoundaryTerm())
    assert both.item() == pytest.approx(alone.item() / 2, rel=1e-5)


def test_the_term_of_the_paper_looks_at_logits():
    label = ball(12)
    term = promise3d_recipe("paper", "tiny").loss.boundary
    perfect = torch.cat([torch.zeros_like(label), label], dim=1)
    assert boundary_loss(perfect, label, term).item() == pytest.approx(0, abs=1e-12)
    assert boundary_loss(2 * perfect, label, term).item() > 1e-3


@pytest.mark.parametrize("change", [{"kernel_dhw": (4, 5, 5)}, {"kernel_dhw": (0, 1, 1)}])
def test_an_even_window_is_refused(change):
    with pytest.raises(ConfigError, match="odd sides"):
        BoundaryTerm(**change)


def test_undecided_logits_by_hand():
    logits = torch.zeros(1, 2, 1, 2, 4)
    label = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.uint8).view(1, 1, 1, 2, 4)
    # Probability one half everywhere: overlap 2 * 1, total 4 + 2.
    expected = 0.5 * (1 - 2 / 6) + 0.5 * math.log(2)
    assert dice_cross_entropy(logits, label).item() == pytest.approx(expected, abs=1e-5)


def test_dice_is_taken_per_sample_and_averaged():
    logits = torch.zeros(2, 2, 1, 1, 2)
    label = torch.zeros(2, 1, 1, 1, 2)
    label[0] = 1
    # The first sample: 2 * 1 / (1 + 2); the second: nothing over 1.
    expected = 0.5 * ((1 - 2 / 3) + 1) / 2 + 0.5 * math.log(2)
    assert dice_cross_entropy(logits, label).item() == pytest.approx(expected, abs=1e-5)


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much():
    label = torch.zeros(1, 1, 2, 2, 2)
    label[..., 0] = 1
    sure = 40 * (2 * torch.cat([1 - label, label], dim=1) - 1)
    assert dice_cross_entropy(sure, label).item() == pytest.approx(0, abs=1e-5)
    assert dice_cross_entropy(-sure, label).item() == pytest.approx(0.5 + 0.5 * 80, rel=1e-5)


def test_an_empty_label_answered_with_nothing_costs_nothing():
    label = torch.zeros(1, 1, 2, 2, 2)
    sure = 60 * (2 * torch.cat([1 - label, label], dim=1) - 1)
    assert dice_cross_entropy(sure, label).item() == pytest.approx(0, abs=1e-5)


def test_the_dice_of_masks_by_hand():
    predicted = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    truth = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    masks = torch.stack([predicted, truth], dim=1)
    expected = torch.tensor([[2 / 5, 1], [0, 1], [1, 1]])
    torch.testing.assert_close(hard_dice(masks, truth[:, None]), expected)
    shape = (3, 2, 2, 1, 2)
    torch.testing.assert_close(hard_dice(masks.view(shape), truth.view(3, 1, 2, 1, 2)), expected)


def _loss_of(write_config, *overrides):
    path, _ = write_config("run")
    task = VolumeTask(read_train_config(path, list(overrides)))
    return task.make_step(task.build_network())._recipe.loss


WINDOWS = (
    "model.method=dynunet",
    "model.preset=automatic",
    "sampling={kind='windows'}",
)


@pytest.mark.parametrize("method", [(), WINDOWS])
def test_the_boundary_loss_is_a_key_of_any_training_file(write_config, method):
    assert _loss_of(write_config, *method, "loss.boundary={}").boundary == BoundaryTerm()
    changed = _loss_of(write_config, *method, "loss.boundary={weight=3, kernel_dhw=[5, 5, 1]}").boundary
    assert changed == BoundaryTerm(weight=3.0, kernel_dhw=(5, 5, 1))
    assert _loss_of(write_config, *method, "loss.boundary={weight=0}").boundary is None


def test_what_is_not_given_of_the_boundary_loss_is_as_in_the_preset(write_config):
    released = ("model.preset=released", "sampling={kind='published'}")
    preset = _loss_of(write_config, *released).boundary
    assert _loss_of(write_config, *released, "loss.boundary={weight=3}").boundary == replace(preset, weight=3.0)
    with pytest.raises(ConfigError, match="odd sides"):
        _loss_of(write_config, "loss.boundary={kernel_dhw=[4, 5, 5]}")
    with pytest.raises(ConfigError, match=r"loss.boundary.wait is not known; known here are .*weight"):
        _loss_of(write_config, "loss.boundary={wait=4}")


def test_a_baseline_with_the_boundary_loss_minimises_the_sum(write_config):
    path, _ = write_config("run")
    steps = []
    for further in ([], ["loss.boundary={weight=3}"]):
        task = VolumeTask(read_train_config(path, [*WINDOWS, *further]))
        torch.manual_seed(0)
        steps.append(task.make_step(task.build_network()).eval())
    batch = training_batch(1, side=32)
    plain, with_boundary = (step(batch, 0)[0].item() for step in steps)
    logits = steps[0].network.encode_image(batch.patch).logits
    term = boundary_loss(logits, batch.label, BoundaryTerm()).item()
    assert term > 1e-4
    assert with_boundary == pytest.approx(plain + 3 * term, rel=1e-5)
