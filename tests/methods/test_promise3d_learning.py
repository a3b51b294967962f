"""The tiny network learns one patch with two lesions, and to give the clicked one."""

from dataclasses import dataclass

import pytest
import torch

from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.recipe import LossRecipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.losses import segmentation_loss

pytestmark = pytest.mark.slow

CENTRE_A, RADII_A = (10.0, 9.0, 11.0), (6.0, 5.0, 7.0)
CENTRE_B, RADII_B = (21.0, 22.0, 20.0), (5.0, 7.0, 6.0)
INSIDE, BESIDE, ABSENT = 1, 0, -1
STEPS = 120


@dataclass(frozen=True)
class Lesson:
    clicks: tuple
    target: torch.Tensor


def ellipsoid(centre, radii):
    axes = torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij")
    parts = [((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)]
    return sum(parts) < 1


A, B = ellipsoid(CENTRE_A, RADII_A), ellipsoid(CENTRE_B, RADII_B)
BOTH = A | B
LESSONS = {
    "a": Lesson(((CENTRE_A, INSIDE),), A),
    "b": Lesson(((CENTRE_B, INSIDE),), B),
    "a and b": Lesson(((CENTRE_A, INSIDE), (CENTRE_B, INSIDE)), BOTH),
    "a not b": Lesson(((CENTRE_A, INSIDE), (CENTRE_B, BESIDE)), A),
}


def prompts_of(lessons):
    points = torch.zeros(len(lessons), 2, 3)
    labels = torch.full((len(lessons), 2), ABSENT)
    for row, lesson in enumerate(lessons):
        for slot, (place, label) in enumerate(lesson.clicks):
            points[row, slot], labels[row, slot] = torch.tensor(place), label
    return PointPrompts(points, labels)


def make_patch():
    generator = torch.Generator().manual_seed(1)
    return (0.3 * torch.randn(32, 32, 32, generator=generator) + 1.5 * BOTH)[None, None]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(2)
    built = LiftedSegmenter(promise3d_recipe("clickvol", "tiny").network)
    lessons = list(LESSONS.values())
    patch, prompts = make_patch().expand(len(lessons), -1, -1, -1, -1), prompts_of(lessons)
    target = torch.stack([lesson.target for lesson in lessons])[:, None]
    optimiser = torch.optim.AdamW(built.parameters(), lr=3e-3)
    for _ in range(STEPS):
        optimiser.zero_grad()
        segmentation_loss(built(patch, prompts), target, LossRecipe()).backward()
        torch.nn.utils.clip_grad_norm_(built.parameters(), 1.0)
        optimiser.step()
    return built.eval()


def logits_of(network, *clicks):
    with torch.inference_mode():
        logits = network(make_patch(), prompts_of([Lesson(clicks, BOTH)]))
    return logits[0, 1] - logits[0, 0]


def mask_of(network, *clicks):
    return logits_of(network, *clicks) > 0


def dice(mask, truth):
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


@pytest.mark.parametrize("name", LESSONS)
def test_the_lessons_are_learned(network, name):
    lesson = LESSONS[name]
    assert dice(mask_of(network, *lesson.clicks), lesson.target) > 0.9


def test_the_click_moves_the_mask(network):
    at_a, at_b = (mask_of(network, (place, INSIDE)) for place in (CENTRE_A, CENTRE_B))
    assert not torch.equal(at_a, at_b)
    assert dice(at_a, B) < 0.1
    assert dice(at_b, A) < 0.1


def test_a_click_elsewhere_in_the_lesion_finds_the_same_lesion(network):
    beside_the_centre = tuple(c + 2 for c in CENTRE_B)
    assert dice(mask_of(network, (beside_the_centre, INSIDE)), B) > 0.8


def test_a_background_click_is_not_an_object_click(network):
    first = (CENTRE_A, INSIDE)
    with_b, without_b = (mask_of(network, first, (CENTRE_B, s)) for s in (INSIDE, BESIDE))
    assert with_b[21, 22, 20]
    assert not without_b[21, 22, 20]
    assert dice(with_b & B, B) > 0.8
    assert dice(without_b & B, B) < 0.1


def test_a_background_click_changes_the_logits_around_it_most(network):
    # A place and a pair of clicks of which no lesson said anything.
    before = logits_of(network, (CENTRE_A, INSIDE))
    change = (logits_of(network, (CENTRE_A, INSIDE), ((10.0, 14.0, 11.0), BESIDE)) - before).abs()
    near = ellipsoid((10.0, 14.0, 11.0), (3.0, 3.0, 3.0))
    far = ~ellipsoid((10.0, 14.0, 11.0), (14.0, 14.0, 14.0))
    assert change[near].mean() > 2 * change[far].mean()
