import dataclasses

import numpy as np
import pytest
import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import StoredScan
from clickvol.datasets.sampling import PatchSampling
from clickvol.mask_decoders.candidates import Candidates
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.spatial import NUM_HINTS
from clickvol.training.tasks.candidate_loss import candidate_loss
from clickvol.training.tasks.step import TrainingStep


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


def test_the_loss_by_hand():
    label = torch.tensor([1, 1, 0, 0], dtype=torch.uint8).view(1, 1, 1, 1, 4)
    right = torch.where(label.bool(), 50.0, -50.0)
    logits = torch.cat([torch.zeros_like(right), torch.tensor([1.0, -1, -1, -1]).view(label.shape)], dim=1)
    # One mask that is right and one that is its contrary; the first has half of the object.
    further = torch.cat([right, -right], dim=1)
    expected = torch.tensor([[2 / 3, 1.0, 0.0]])
    loss, figures = candidate_loss(Candidates(further, expected), logits, label)
    # The contrary costs 1 and a cross-entropy of 50, of which a tenth of the mean counts, by half.
    assert loss.item() == pytest.approx(0.5 * 0.1 * 51 / 2, rel=1e-4)
    assert figures.tolist() == pytest.approx([2 / 3, 1.0, 0.0])
    # Each is judged .06 too well: .06^2 / (2 * .1) on average, times .3.
    judged, figures = candidate_loss(Candidates(further, expected + 0.06), logits, label)
    assert (judged - loss).item() == pytest.approx(0.3 * 0.06**2 / 0.2, rel=1e-3)
    assert figures.tolist() == pytest.approx([2 / 3, 1.0, 0.06], abs=1e-6)


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
    recipe, sampling = promise3d_recipe("clickvol", "tiny"), PatchSampling(max_corrected_clicks=2)
    step = TrainingStep(network_of(), recipe, sampling, seed=1)
    assert step.figures == ("dice", "best_dice", "judge_error")
    optimiser = torch.optim.AdamW(step.parameters(), lr=3e-3)
    losses = []
    for number in range(12):
        loss, figures, _ = step(sampler.batch(range(0, 4)), number)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        dice, best, error = figures.tolist()
        assert 0 <= dice <= best <= 1
        assert 0 < error < 1
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
