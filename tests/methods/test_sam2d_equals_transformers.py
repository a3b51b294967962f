"""Our SAM against another implementation of it, with the same random weights."""

import itertools

import pytest
import torch

from clickvol.image_encoders.sam_vit2d import SamVit2dConfig
from clickvol.mask_decoders.sam_mask_decoder import SamMaskDecoderConfig
from clickvol.methods.sam2d import Sam2d, Sam2dConfig, sam2d_preset
from clickvol.prompt_encoders.sam_prompts import Prompts2d, SamPromptConfig
from reference.compare import deviation, noise, randomise
from reference.transformers_sam import sam_names, tiny_sam

transformers = pytest.importorskip(
    "transformers", reason="comparing with another SAM needs the extra test-parity"
)

SIDE = 80


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    # Large enough weights that image and prompts matter far more than the tolerance.
    model = randomise(tiny_sam(transformers), scale=1.0)
    with torch.no_grad():  # the two names of one matrix
        matrix = torch.randn(2, 16)
        model.shared_image_embedding.positional_embedding.copy_(matrix)
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(matrix)
    return model


@pytest.fixture(scope="module")
def ours(theirs):
    encoder = SamVit2dConfig(
        image_side=SIDE,
        patch_side=8,
        width=24,
        depth=3,
        num_heads=3,
        mlp_ratio=2.0,
        window=4,
        global_blocks=(1,),
        taps=(0, 1, 2),
        feature_width=32,
    )
    prompt = SamPromptConfig(width=32, image_side=SIDE, grid_side=10, mask_channels=8)
    decoder = SamMaskDecoderConfig(width=32, num_heads=4, mlp_width=48, iou_width=40)
    network = Sam2d(Sam2dConfig(image_encoder=encoder, prompt=prompt, decoder=decoder))
    network.load_state_dict(sam_names(theirs.state_dict()))
    return network.eval()


def image():
    return noise(2, 3, SIDE, SIDE)


def xy(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator) * (SIDE - 1)


CASES = {
    "one point": Prompts2d(points_xy_pixel=xy(2, 1, 2), labels=torch.tensor([[1], [0]])),
    "points": Prompts2d(points_xy_pixel=xy(2, 4, 2), labels=torch.tensor([[1, 0, 1, 0], [0, 1, 1, -1]])),
    "box": Prompts2d(boxes_xyxy_pixel=xy(2, 4, seed=1)),
    "points and box": Prompts2d(
        points_xy_pixel=xy(2, 3, 2),
        labels=torch.tensor([[1, 0, 1], [0, 1, 1]]),
        boxes_xyxy_pixel=xy(2, 4, seed=1),
    ),
    "point and mask": Prompts2d(
        points_xy_pixel=xy(2, 1, 2),
        labels=torch.tensor([[1], [1]]),
        masks=noise(2, 1, 40, 40, seed=2),
    ),
    "box and mask": Prompts2d(boxes_xyxy_pixel=xy(2, 4, seed=1), masks=noise(2, 1, 40, 40, seed=2)),
}


def in_their_form(prompts):
    """Return their four arguments: they number several objects of an image, of which we have one."""
    points, labels, boxes = prompts.points_xy_pixel, prompts.labels, prompts.boxes_xyxy_pixel
    return (
        None if points is None else points[:, None],
        None if labels is None else labels[:, None],
        None if boxes is None else boxes[:, None],
        prompts.masks,
    )


@torch.no_grad()
def test_the_image_encoders_agree(theirs, ours):
    their = theirs.vision_encoder(image(), output_hidden_states=True)
    our = ours.encode_image(image())
    assert their.last_hidden_state.std() > 0.1
    assert deviation(our.embedding, their.last_hidden_state) < 1e-5
    for tap, hidden in zip(our.taps, their.hidden_states[1:], strict=True):
        assert deviation(tap, hidden.permute(0, 3, 1, 2)) < 1e-5


@torch.no_grad()
def test_the_positions_of_the_grid_agree(theirs, ours):
    their = theirs.get_image_wide_positional_embeddings()
    assert deviation(ours.prompt_encoder.grid_positions(), their) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("prompts", CASES.values(), ids=CASES)
def test_the_prompt_encoders_agree(theirs, ours, prompts):
    sparse, dense = theirs.prompt_encoder(*in_their_form(prompts))
    our = ours.prompt_encoder(prompts, 2)
    assert deviation(our.sparse, sparse[:, 0]) < 1e-5
    # They broadcast the absence of a mask later.
    assert deviation(our.dense, dense.expand(2, -1, -1, -1)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("prompts", CASES.values(), ids=CASES)
def test_the_masks_agree(theirs, ours, prompts):
    our = ours(image(), prompts)
    points, labels, boxes, masks = in_their_form(prompts)
    for multimask, chosen in ((False, slice(0, 1)), (True, slice(1, None))):
        their = theirs(
            pixel_values=image(),
            input_points=points,
            input_labels=labels,
            input_boxes=boxes,
            input_masks=masks,
            multimask_output=multimask,
        )
        assert their.pred_masks.std() > 0.5
        assert deviation(our.logits[:, chosen], their.pred_masks[:, 0]) < 1e-5
        assert deviation(our.iou[:, chosen], their.iou_scores[:, 0]) < 1e-5


@torch.no_grad()
def test_every_prompt_matters_in_this_comparison(ours):
    features = ours.encode_image(image())
    logits = [ours.decode(features, prompts).logits for prompts in CASES.values()]
    for a, b in itertools.combinations(logits, 2):
        assert deviation(a, b) > 1e-2
    elsewhere = ours(image().flip(0), CASES["points"]).logits
    assert deviation(elsewhere, logits[1]) > 1e-2


@pytest.mark.parametrize(
    ("name", "vision", "total"),
    [
        # The sizes of facebook/sam-vit-base, -large and -huge.
        ("vit_b", {}, 93_735_472),
        (
            "vit_l",
            {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "global_attn_indexes": [5, 11, 17, 23],
            },
            312_342_832,
        ),
        (
            "vit_h",
            {
                "hidden_size": 1280,
                "num_hidden_layers": 32,
                "num_attention_heads": 16,
                "global_attn_indexes": [7, 15, 23, 31],
            },
            641_090_608,
        ),
    ],
)
def test_the_published_sizes_have_their_names_and_shapes(name, vision, total):
    with torch.device("meta"):
        config = transformers.SamConfig(vision_config=vision)
        theirs = sam_names(transformers.SamModel(config).state_dict())
        ours = Sam2d(sam2d_preset(name))
    shapes = {key: tuple(tensor.shape) for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tuple(tensor.shape) for key, tensor in theirs.items()}
    # The Gaussian matrix is in the files, but it is no parameter: 256 numbers.
    assert sum(parameter.numel() for parameter in ours.parameters()) == total
