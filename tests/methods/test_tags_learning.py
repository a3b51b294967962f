"""The tiny network learns one patch with two lesions in one organ, its tokens the texts."""

import pytest
import torch

from clickvol.image_encoders.text_bank import stub_text_bank
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.tags import tags_recipe, with_text_width
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.alignment_loss import alignment_loss
from clickvol.training.tasks.losses import segmentation_loss
from reference.lessons import LEARNED_DICE

pytestmark = pytest.mark.slow

CENTRE_A, RADII_A = (10.0, 9.0, 11.0), (6.0, 5.0, 7.0)
CENTRE_B, RADII_B = (21.0, 22.0, 20.0), (5.0, 7.0, 6.0)
TEXT_WIDTH = 32
STEPS = 120  # at most: fewer once both are learned


def ellipsoid(centre, radii):
    axes = torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij")
    return sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) < 1


A, B = ellipsoid(CENTRE_A, RADII_A), ellipsoid(CENTRE_B, RADII_B)
ORGAN = ellipsoid((15.5, 15.5, 15.5), (14.0, 15.0, 15.0)) | A | B


def make_patch():
    generator = torch.Generator().manual_seed(1)
    scan = 0.3 * torch.randn(32, 32, 32, generator=generator) + 1.5 * (A | B) + 0.3 * ORGAN
    return torch.stack([scan, ORGAN.float()])[None]


def prompts_at(*places):
    return PointPrompts(torch.tensor(places)[:, None], torch.ones(len(places), 1, dtype=torch.int64))


@pytest.fixture(scope="module")
def trained():
    """Train on a click in A and one in B; return network and texts."""
    torch.manual_seed(2)
    recipe = with_text_width(tags_recipe("clickvol", "tiny"), TEXT_WIDTH)
    text = stub_text_bank(TEXT_WIDTH, 0).columns
    network = LiftedSegmenter(recipe.network)
    patch = make_patch().expand(2, -1, -1, -1, -1)
    clicks, target = prompts_at(CENTRE_A, CENTRE_B), torch.stack([A, B])[:, None].long()
    # What a text says of a place does not depend on the click.
    tumour = (A | B)[None, None].expand(2, -1, -1, -1, -1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(STEPS):
        encoded = network.encode_image(patch)
        aligning = alignment_loss(encoded.aligned, text, tumour, recipe.loss.alignment)
        logits = network.decode(encoded, clicks)
        losses.append(aligning.item())
        masks = logits.detach()[:, 1] > logits.detach()[:, 0]
        if min(map(dice, masks, target[:, 0])) > LEARNED_DICE and losses[-1] < 0.4 * losses[0]:
            break
        loss = segmentation_loss(logits, target, recipe.loss) + aligning
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return network.eval(), text, losses


def mask_of(network, place, patch=None):
    with torch.inference_mode():
        logits = network(make_patch() if patch is None else patch, prompts_at(place))[0]
    return logits[1] > logits[0]


def dice(mask, truth):
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


@pytest.mark.parametrize(("place", "truth"), [(CENTRE_A, A), (CENTRE_B, B)], ids="ab")
def test_the_clicked_lesion_is_learned(trained, place, truth):
    assert dice(mask_of(trained[0], place), truth) > 0.9


def test_a_moved_click_moves_the_mask(trained):
    assert dice(mask_of(trained[0], CENTRE_A), B) < 0.1
    assert dice(mask_of(trained[0], CENTRE_B), A) < 0.1


def test_tokens_learn_which_text_is_theirs(trained):
    network, text, losses = trained
    assert losses[-1] < 0.5 * losses[0]
    with torch.inference_mode():
        tokens = network.encode_image(make_patch()).aligned[-1]
    towards_tumour = torch.einsum("bedhw,e->bdhw", tokens, text[:, 1] - text[:, 0])[0]
    # 8^3 tokens of 4 voxels: the middle of each lesion, and corners where there is none.
    assert towards_tumour[2, 2, 2] > 0
    assert towards_tumour[5, 5, 5] > 0
    assert towards_tumour[0, 7, 0] < 0
    assert towards_tumour[7, 0, 7] < 0
