import math

import pytest
import torch
import torch.nn.functional as F

from clickvol.methods.recipe import AlignmentTerm
from clickvol.training.tasks.alignment_loss import alignment_loss
from reference.compare import noise

PLAIN = AlignmentTerm()
AGAIN = AlignmentTerm(focal_input="softmax_again")
AXES = torch.eye(2)
HEALTHY, TUMOUR, BETWEEN = [3.0, 0.0], [0.0, 0.5], [2.0, 2.0]


def one_token(token):
    return (torch.tensor(token).view(1, 2, 1, 1, 1),)


def everywhere(value):
    return torch.full((1, 1, 1, 2, 3), value, dtype=torch.uint8)


RIGHT_AGAIN = 1 / (1 + math.exp(-1))


def focal(right):
    """Focal loss of a score of the right class, which smoothing lifts a little."""
    own = (1 - 1e-5) * right + 1e-5 * (1 - right) + 1e-5
    return -((1 - own) ** 2) * math.log(own)


@pytest.mark.parametrize(
    ("token", "label", "term", "expected"),
    [
        (HEALTHY, 0, PLAIN, 0.0),
        (TUMOUR, 1, PLAIN, 0.0),
        (HEALTHY, 1, PLAIN, 0.5 * (focal(0) + 1)),
        (TUMOUR, 0, PLAIN, 0.5 * (focal(0) + 1)),
        # Scores of a half: Dice is 1 - 2 * 3 / (3 + 6).
        (BETWEEN, 1, PLAIN, 0.5 * (focal(0.5) + 1 / 3)),
        (BETWEEN, 0, PLAIN, 0.5 * (focal(0.5) + 1)),
        # softmax of (1, 0) is all the certainty there is.
        (TUMOUR, 1, AGAIN, 0.5 * focal(RIGHT_AGAIN)),
        (HEALTHY, 1, AGAIN, 0.5 * (focal(1 - RIGHT_AGAIN) + 1)),
        (BETWEEN, 1, AGAIN, 0.5 * (focal(0.5) + 1 / 3)),
    ],
)
def test_one_token_by_hand(token, label, term, expected):
    result = alignment_loss(one_token(token), AXES, everywhere(label), term)
    assert float(result) == pytest.approx(expected, abs=2e-6)


def test_the_stages_are_added():
    stages = one_token(HEALTHY) + one_token(BETWEEN) + one_token(TUMOUR)
    result = alignment_loss(stages, AXES, everywhere(1), PLAIN)
    single = [alignment_loss((s,), AXES, everywhere(1), PLAIN) for s in stages]
    assert float(result) == pytest.approx(float(sum(single)))


def test_the_weight_is_not_in_it():
    result = alignment_loss(one_token(BETWEEN), AXES, everywhere(1), AlignmentTerm(weight=7.0))
    assert torch.equal(result, alignment_loss(one_token(BETWEEN), AXES, everywhere(1), PLAIN))


def plain_form(aligned, text, label, *, again):
    """Two logit maps, enlarged and sent through softmax, as the paper describes it."""
    total = 0.0
    for tokens in aligned:
        unit = tokens / tokens.norm(dim=1, keepdim=True)
        logits = 100 * (unit.movedim(1, -1) @ text).movedim(-1, 1)
        large = F.interpolate(logits, label.shape[2:], mode="trilinear", align_corners=True)
        scores = large.softmax(1)
        one_hot = torch.cat([1 - label, label], dim=1).float()
        p = scores.softmax(1) if again else scores
        own = (one_hot.clamp(1e-5, 1 - 1e-5) * p).sum(1) + 1e-5
        focal = ((1 - own).square() * -own.log()).mean()
        tumour, truth = scores[:, 1].flatten(1), label.flatten(1).float()
        overlap = (2 * (tumour * truth).sum(1) + 1e-5) / (tumour.sum(1) + truth.sum(1) + 1e-5)
        total = total + 0.5 * (focal + 1 - overlap.mean())
    return total


@pytest.mark.parametrize("term", [PLAIN, AGAIN], ids=["plain", "again"])
def test_one_map_does_for_two(term):
    label = (noise(2, 1, 8, 12, 10) > 0.5).long()
    text = F.normalize(noise(6, 2, seed=1) + noise(6, 1, seed=2), dim=0)
    aligned = tuple(noise(2, 6, 2, 4, 3, seed=s).requires_grad_() for s in (3, 4))
    result = alignment_loss(aligned, text, label, term)
    expected = plain_form(aligned, text, label, again=term.focal_input == "softmax_again")
    assert result.item() == pytest.approx(expected.item(), rel=1e-4)
    ours, plain = (torch.autograd.grad(loss, aligned) for loss in (result, expected))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-5)


def test_it_falls_as_tokens_turn_to_the_right_text():
    label = torch.zeros(1, 1, 8, 8, 8)
    label[..., 4:] = 1
    text = F.normalize(noise(5, 2), dim=0)
    wanted = text[:, (torch.arange(4) > 1).long()].view(1, 5, 1, 1, 4).expand(-1, -1, 4, 4, -1)
    start = noise(1, 5, 4, 4, 4, seed=1)
    losses = [
        float(alignment_loss((torch.lerp(start, wanted, part),), text, label, PLAIN))
        for part in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.2 * losses[0]


def test_the_axes_are_d_h_w():
    """A blob that no two axes may swap: tokens that know its place cost little, turned ones much."""
    cells = torch.zeros(1, 1, 6, 6, 6)
    cells[:, :, 0:2, 1:4, 2:6] = 1
    label = F.interpolate(cells, (24, 24, 24), mode="trilinear", align_corners=True) > 0.5
    right = torch.cat([1 - cells, cells], dim=1)
    result = float(alignment_loss((right,), AXES, label, PLAIN))
    assert result < 0.05
    for order in [(0, 1, 3, 2, 4), (0, 1, 2, 4, 3), (0, 1, 4, 3, 2)]:
        turned = float(alignment_loss((right.permute(order),), AXES, label, PLAIN))
        assert turned > 5 * result


def test_half_precision_tokens_are_compared_in_full(recwarn):
    tokens = noise(1, 4, 2, 2, 2)
    text = F.normalize(noise(4, 2, seed=1), dim=0)
    label = (noise(1, 1, 4, 4, 4, seed=2) > 0).long()
    result = alignment_loss((tokens.bfloat16(),), text, label, PLAIN)
    assert result.dtype == torch.float32
    expected = alignment_loss((tokens.bfloat16().float(),), text, label, PLAIN)
    assert torch.equal(result, expected)
