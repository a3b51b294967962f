"""Two lesions in one patch, lessons of which clicks ask for which, and a network that takes them in."""

from dataclasses import dataclass

import torch

from clickvol.methods.registry import find_method
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.losses import segmentation_loss

INSIDE, OUTSIDE, ABSENT = 1, 0, -1


def ellipsoid(centre, radii, side=32):
    axes = torch.meshgrid(*[torch.arange(float(side))] * 3, indexing="ij")
    parts = [((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)]
    return sum(parts) < 1


CENTRE_A, RADII_A = (10.0, 9.0, 11.0), (6.0, 5.0, 7.0)
CENTRE_B, RADII_B = (21.0, 22.0, 20.0), (5.0, 7.0, 6.0)
A, B = ellipsoid(CENTRE_A, RADII_A), ellipsoid(CENTRE_B, RADII_B)
BOTH = A | B


@dataclass(frozen=True)
class Lesson:
    clicks: tuple
    target: torch.Tensor


def prompts_of(lessons):
    slots = max(1, *(len(lesson.clicks) for lesson in lessons), 0)
    points = torch.zeros(len(lessons), slots, 3)
    labels = torch.full((len(lessons), slots), ABSENT)
    for row, lesson in enumerate(lessons):
        for slot, (place, label) in enumerate(lesson.clicks):
            points[row, slot], labels[row, slot] = torch.tensor(place), label
    return PointPrompts(points, labels)


def make_patch(objects=1.5 * BOTH):
    """(D, H, W) of what the objects add -> (1, 1, D, H, W) with noise."""
    generator = torch.Generator().manual_seed(1)
    return (0.3 * torch.randn(objects.shape, generator=generator) + objects)[None, None]


# A network that has every lesson as well as this has learned them; tests ask for 0.9.
LEARNED_DICE = 0.91


def learn(recipe, patch, lessons, *, steps, rate=3e-3, seed=2):
    """Return a network after steps on all lessons at once: so many, or fewer once it has learned them."""
    torch.manual_seed(seed)
    network = find_method(recipe.method).build(recipe.network)
    prompts = prompts_of(lessons)
    patches = patch.expand(len(lessons), -1, -1, -1, -1)
    target = torch.stack([lesson.target for lesson in lessons])[:, None]
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        logits = network(patches, prompts)
        masks = logits.detach()[:, 1] > logits.detach()[:, 0]
        if min(dice(*pair) for pair in zip(masks, target[:, 0], strict=True)) > LEARNED_DICE:
            break
        segmentation_loss(logits, target, recipe.loss).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return network.eval()


def logits_of(network, patch, *clicks):
    """Return how much more likely the object is: (D, H, W)."""
    with torch.inference_mode():
        logits = network(patch, prompts_of([Lesson(clicks, BOTH)]))
    return logits[0, 1] - logits[0, 0]


def mask_of(network, patch, *clicks):
    return logits_of(network, patch, *clicks) > 0


def dice(mask, truth):
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


# The published prompt encoder sees what lies under a click, and neither where it is nor which sign it has:
# of two lesions that look alike it could not know which one is meant. So these do not: one is brighter than
# what is around it, the other one darker.
UNLIKE = 1.5 * A - 1.5 * B
UNLIKE_LESSONS = (Lesson(((CENTRE_A, INSIDE),), A), Lesson(((CENTRE_B, INSIDE),), B))


def check_that_the_click_moves_the_mask(network, patch):
    """Check that either of the unlike lesions is found at its click, and that alone."""
    at_a, at_b = (mask_of(network, patch, (place, INSIDE)) for place in (CENTRE_A, CENTRE_B))
    assert dice(at_a, A) > 0.9
    assert dice(at_b, B) > 0.9
    assert dice(at_a, B) < 0.1
    assert dice(at_b, A) < 0.1
