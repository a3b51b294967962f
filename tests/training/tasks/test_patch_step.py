import dataclasses

import numpy as np
import pytest
import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.sample_plan import PatchSampling
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import StoredScan
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.spatial import NUM_HINTS
from clickvol.training.tasks.patch_step import PatchStep, hard_dice


def network_of():
    plain = promise3d_recipe("clickvol", "tiny").network
    num_maps = plain.decoder.num_prompt_maps + NUM_HINTS
    torch.manual_seed(1)
    return LiftedSegmenter(
        dataclasses.replace(
            plain,
            decoder=dataclasses.replace(plain.decoder, num_prompt_maps=num_maps),
            num_hints=NUM_HINTS,
            num_candidates=3,
        )
    )


@pytest.fixture(scope="module")
def sampler():
    d, h, w = np.ogrid[:24, :24, :24]
    ball = ((d - 12) ** 2 + (h - 12) ** 2 + (w - 12) ** 2 < 36).astype(np.uint8)
    scan = StoredScan("a", "set", "a", (2.0, 2.0, 2.0), np.where(ball, 180, 90).astype(np.uint8), ball)
    store = ScanStore.of([scan], torch.device("cpu"))
    return PatchSampler(store, PatchSampling(group_shares={"set": 1.0}), 32, seed=1)


def test_hard_dice_by_hand():
    label = torch.zeros(1, 1, 1, 1, 4, dtype=torch.bool)
    label[..., :2] = True
    masks = torch.tensor([[[[[1, 0, 0, 0]]], [[[0, 0, 1, 1]]]]], dtype=torch.bool)
    assert hard_dice(masks, label).tolist() == [[pytest.approx(2 / 3), 0.0]]
    nothing = torch.zeros_like(label)
    assert hard_dice(nothing, nothing).item() == 1


def test_no_hint_is_the_same_as_hints_of_zero():
    network = network_of().eval()
    patch = torch.randn(1, 1, 32, 32, 32)
    points, labels = torch.full((1, 1, 3), 16.0), torch.ones(1, 1, dtype=torch.int64)
    zeros = torch.zeros(1, NUM_HINTS, 32, 32, 32)
    with torch.no_grad():
        encoded = network.encode_image(patch)
        without = network.decode(encoded, PointPrompts(points, labels))
        assert torch.equal(without, network.decode(encoded, PointPrompts(points, labels, zeros)))
        assert not torch.equal(without, network.decode(encoded, PointPrompts(points, labels, zeros + 1)))


def test_training_lowers_the_loss_of_a_ball(sampler):
    step = PatchStep(network_of(), promise3d_recipe("clickvol", "tiny").loss, seed=1, max_corrections=2)
    optimiser = torch.optim.AdamW(step.parameters(), lr=3e-3)
    losses = []
    for number in range(12):
        figures = step(sampler.batch(range(0, 4)), number)
        optimiser.zero_grad()
        figures.loss.backward()
        optimiser.step()
        losses.append(float(figures.loss.detach()))
        assert (figures.best_dice >= figures.dice).all()
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
