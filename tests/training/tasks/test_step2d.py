import numpy as np
import pytest
import torch

from clickvol.datasets.by_case.slice_samples import SliceSample
from clickvol.methods.promise2d import Promise2d, Promise2dTraining
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from clickvol.training.tasks.step2d import SliceStep
from reference.compare import noise
from reference.tiny_models2d import tiny_promise2d_config

NUMBERS = 0


def make_step(mode, sigmoid="once"):
    torch.manual_seed(1)
    network = Promise2d(tiny_promise2d_config(mode)).train()
    return SliceStep(network, Promise2dTraining(sigmoid=sigmoid))


def make_batch(size=2, *, only=None):
    label = torch.zeros(size, 1, 64, 64, dtype=torch.uint8)
    for number in range(size):
        label[number, 0, 10 : 40 - 8 * number, 20:50] = 1
    points = torch.tensor([[30.0, 20.0], [5.0, 5.0]]).expand(size, -1, -1)
    signs = torch.tensor([1, 0]).expand(size, -1)
    kept = slice(None) if only is None else slice(only, only + 1)
    return SliceSample(noise(size, 3, 64, 64, seed=5)[kept], label[kept], points[kept], signs[kept])


@pytest.mark.parametrize("mode", ["ips", "apm", "promise"])
def test_what_is_added_gets_a_gradient_and_the_foundation_none(mode):
    step = make_step(mode)
    loss, overlap, soft = step(make_batch(), NUMBERS)
    loss.backward()
    assert not overlap.requires_grad
    assert not soft.requires_grad
    for name, parameter in step.network.named_parameters():
        if name.startswith("sam."):
            assert parameter.grad is None, name
    parts = {"apm": ["auto_prompter"], "ips": ["pattern_embedding"]}
    for part in parts.get(mode, ["auto_prompter", "pattern_embedding"]):
        gradients = [p.grad for p in getattr(step.network, part).parameters()]
        assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0


@pytest.mark.parametrize(("mode", "given"), [("ips", True), ("apm", False), ("promise", False)])
def test_the_points_are_given_or_predicted_as_the_mode_says(mode, given, monkeypatch):
    seen = []
    original = Promise2d.decode

    def record(self, features, *, points):
        seen.append(points)
        return original(self, features, points=points)

    monkeypatch.setattr(Promise2d, "decode", record)
    batch = make_batch()
    make_step(mode)(batch, NUMBERS)
    (points,) = seen
    assert isinstance(points, Prompts2d) == given
    if given:
        assert torch.equal(points.points_xy_pixel, batch.points_xy_pixel)
        assert torch.equal(points.labels, batch.point_labels)
    else:
        assert points == "auto"


def test_loss_and_scores_of_known_logits(monkeypatch):
    # The tiny network answers with 32 x 32 logits.
    logits = torch.full((1, 1, 32, 32), -20.0)
    logits[:, :, 5:20, 10:25] = 20.0
    answer = type("Answer", (), {"logits": logits})
    monkeypatch.setattr(Promise2d, "decode", lambda *_, **__: answer)
    perfect = make_step("ips")(make_batch(1), NUMBERS)
    assert [float(v) for v in perfect] == pytest.approx([0, 1, 0], abs=1e-4)
    half = logits.clone()
    half[:, :, 5:20, 10:25][..., 5:] = -20.0
    answer.logits = half
    _, overlap, soft = make_step("ips")(make_batch(1), NUMBERS)
    # 15 x 5 of 15 x 15 pixels: 2 * 75 / (75 + 225), and with 2 added above and 1 below.
    assert float(overlap) == pytest.approx(150 / 300)
    assert float(soft) == pytest.approx(1 - 152 / 301, abs=1e-4)
    # Squashed twice, even a perfect mask costs something.
    answer.logits = logits
    assert float(make_step("ips", "twice")(make_batch(1), NUMBERS)[0]) > 1


def test_the_loss_is_the_mean_over_the_samples():
    step = make_step("ips")
    whole = step(make_batch(), NUMBERS)[0].item()
    parts = [step(make_batch(only=n), 0)[0].item() for n in range(2)]
    np.testing.assert_allclose(whole, np.mean(parts), rtol=1e-4)
    assert abs(parts[0] - parts[1]) > 1e-4


def test_half_precision_is_for_the_encoder_alone(monkeypatch):
    seen = []
    original = Promise2d.decode

    def record(self, features, *, points):
        answer = original(self, features, points=points)
        seen.extend([features.embedding, answer.prompts.points_xy_pixel, answer.logits])
        return answer

    monkeypatch.setattr(Promise2d, "decode", record)
    step, batch = make_step("promise"), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert step.network.encode_image(batch.image).embedding.dtype == torch.bfloat16
        step(batch, NUMBERS)
    assert [value.dtype for value in seen] == [torch.float32] * 3
    points = seen[1]
    assert not torch.equal(points, points.bfloat16().float())


def test_steps_on_one_batch_lower_the_loss():
    step = make_step("ips")
    optimiser = torch.optim.Adam(step.network.trainable_parameters().values(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss, _, _ = step(make_batch(), NUMBERS)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    # A random decoder listens little to its tokens.
    assert losses[-1] < losses[0] - 0.008


def test_images_that_repeat_are_encoded_once(monkeypatch):
    step, batch = make_step("ips"), make_batch()
    fresh = step(batch, NUMBERS)[0].item()
    repeating = SliceStep(step.network, Promise2dTraining(sigmoid="once"), repeats=True)
    encoded = []
    original = Promise2d.encode_image

    def record(self, image):
        encoded.append(len(image))
        return original(self, image)

    monkeypatch.setattr(Promise2d, "encode_image", record)
    losses = [repeating(batch, NUMBERS)[0].item() for _ in range(3)]
    assert encoded == [1, 1]
    assert losses == pytest.approx([fresh] * 3, abs=1e-6)
    step(batch, NUMBERS)
    step(batch, NUMBERS)
    assert encoded == [1, 1, 2, 2]  # augmented images never come back
    step.eval()
    step(batch, NUMBERS)
    step(batch, NUMBERS)
    assert encoded == [1, 1, 2, 2, 1, 1]  # those that validate do
