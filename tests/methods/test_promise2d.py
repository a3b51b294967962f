from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from clickvol.errors import ConfigError
from clickvol.image_encoders.sam_vit2d import SamVit2dConfig
from clickvol.image_encoders.tiny_vit import TinyVitConfig
from clickvol.mask_decoders.sam_mask_decoder import SamMaskDecoderConfig
from clickvol.methods.promise2d import (
    Promise2d,
    Promise2dConfig,
    Promise2dTraining,
    binary_mask,
    promise2d_network,
    promise2d_preset,
    prompts_from_truth,
)
from clickvol.methods.sam2d import Sam2dConfig
from clickvol.prompt_encoders.sam_prompts import Prompts2d, SamPromptConfig
from clickvol.training.tasks.losses2d import bce_dice
from reference.compare import deviation, noise, randomise

MODES = ("apm", "ips", "promise")
SIDE = 64


def tiny(mode, *, form="resnet", last_layer="default", num_points=4):
    """The tiny network with a ResNet of two blocks, which a batch of two can be normalised in."""
    config = promise2d_network("tiny", mode, form=form, last_layer=last_layer, num_points=num_points)
    if config.auto_prompter is None:
        return config
    smaller = replace(config.auto_prompter, mixed_width=12, stage_widths=(8, 16), stage_depths=(1, 1))
    return replace(config, auto_prompter=smaller)


def with_tiny_vit(mode):
    """Another foundation: a TinyViT of two stages, with BatchNorm inside and taps on two grids."""
    encoder = TinyVitConfig(
        image_side=32,
        widths=(8, 16),
        depths=(1, 1),
        num_heads=(1, 2),
        windows=(4, 4),
        merging_strides=(4,),
        feature_width=32,
    )
    sam = replace(
        tiny("ips").sam,
        image_encoder=encoder,
        prompt=SamPromptConfig(width=32, image_side=32, grid_side=8, mask_channels=8),
    )
    config = tiny(mode)
    prompter = config.auto_prompter and replace(
        config.auto_prompter, image_side=32, tap_widths=(8, 16), tap_sides=(32, 8)
    )
    return replace(config, sam=sam, auto_prompter=prompter)


def make_network(config):
    torch.manual_seed(3)
    return randomise(Promise2d(config))


def make_image(batch=2, side=SIDE):
    return noise(batch, 3, side, side)


def click(*places):
    """One click inside per image."""
    points = torch.tensor(places, dtype=torch.float32)[:, None]
    return Prompts2d(points_xy_pixel=points, labels=torch.ones(len(places), 1, dtype=torch.int64))


CLICKS = click((10, 20), (40, 8))


def points_for(mode):
    return CLICKS if mode == "ips" else "auto"


def count(parameters):
    return sum(p.numel() for p in parameters)


# ---------------------------------------------------------------- what is trained and what is not


@pytest.mark.parametrize("form", ["resnet", "cross"])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_exactly_the_trainable_set(mode, form):
    network = make_network(tiny(mode, form=form)).train()
    target = (noise(2, 1, SIDE, SIDE) > 0).float()
    bce_dice(network(make_image(), points=points_for(mode)).logits, target).backward()
    reached = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == set(network.trainable_parameters())
    parts = {name.split(".")[0] for name in reached}
    assert parts == {"apm": {"auto_prompter"}, "ips": {"pattern_embedding"}}.get(
        mode, {"auto_prompter", "pattern_embedding"}
    )


@pytest.mark.parametrize("make_config", [tiny, with_tiny_vit])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_changes_the_trained_parts_and_nothing_of_sam(mode, make_config):
    network = make_network(make_config(mode)).train()
    side = network.config.sam.image_side
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # Whatever has no gradient an optimiser leaves alone, so it may be given everything.
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        masks = network(make_image(side=side), points=points_for(mode))
        bce_dice(masks.logits, torch.ones(2, 1, side, side)).backward()
        optimiser.step()
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert not {name for name in changed if name.startswith("sam.")}
    assert set(network.trainable_parameters()) <= changed
    assert all(p.grad is None and not p.requires_grad for p in network.sam.parameters())


def test_sam_stays_as_it_is_used_whatever_the_mode():
    network = Promise2d(with_tiny_vit("promise"))
    assert network.train() is network
    assert network.training
    assert network.auto_prompter.training
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.sam.modules())
    assert not any(m.training for m in network.sam.modules())
    assert not any(m.training for m in network.eval().modules())


def test_the_points_themselves_get_a_gradient_through_the_frozen_decoder():
    network = make_network(tiny("apm")).train()
    masks = network(make_image(), points="auto")
    points = masks.prompts.points_xy_pixel
    points.retain_grad()
    bce_dice(masks.logits, torch.ones(2, 1, SIDE, SIDE)).backward()
    assert (points.grad.abs() > 0).all()


def test_features_of_a_frozen_encoder_need_no_gradient():
    features = make_network(tiny("promise")).train().encode_image(make_image())
    assert not features.embedding.requires_grad
    assert not any(tap.requires_grad for tap in features.taps)


@pytest.mark.parametrize(
    ("mode", "form", "trained"),
    [
        ("ips", "resnet", 1_312_768),  # published: 1.31 M
        ("apm", "resnet", 28_191_136),  # 28.72 M, of which 0.53 M are never used
        ("promise", "resnet", 29_503_904),  # 30.03 M, the same
        ("apm", "cross", 44_304_386),  # 44.31 M with three norms that are never used
    ],
)
def test_the_base_preset_has_the_published_numbers_of_parameters(mode, form, trained):
    with torch.device("meta"):
        network = Promise2d(promise2d_preset("released", "vit_b", mode, form).network)
    assert count(network.trainable_parameters().values()) == trained
    assert count(p for p in network.parameters() if p.requires_grad) == trained
    assert round(count(network.sam.parameters()) / 1e6, 2) == 93.74


# ---------------------------------------------------------------- what comes out


def test_without_a_shift_it_is_sam_to_the_bit():
    network = make_network(tiny("ips", last_layer="zero")).eval()
    nn.init.zeros_(network.pattern_embedding.lin2.weight)
    nn.init.zeros_(network.pattern_embedding.lin2.bias)
    image = make_image()
    expected = network.sam(image, CLICKS)
    result = network(image, points=CLICKS)
    assert torch.equal(result.logits, expected.logits[:, 1:2])
    assert torch.equal(result.iou, expected.iou[:, 1])


def test_it_starts_as_sam_where_the_last_layer_starts_at_zero():
    torch.manual_seed(3)
    network = Promise2d(tiny("ips", last_layer="zero")).eval()
    image = make_image()
    result = network(image, points=CLICKS).logits
    assert torch.equal(result, network.sam(image, CLICKS).logits[:, 1:2])
    nn.init.ones_(network.pattern_embedding.lin2.bias)
    assert deviation(network(image, points=CLICKS).logits, result) > 1e-3


@pytest.mark.parametrize("token", [0, 1, 2, 3])
def test_the_mask_of_the_chosen_token_is_the_answer(token):
    network = make_network(replace(tiny("ips"), mask_token=token)).eval()
    features = network.encode_image(make_image())
    shift = network.pattern_embedding(features.embedding)
    every = network.sam.decode(features, CLICKS, mask_token_shift=shift)
    result = network.decode(features, points=CLICKS)
    assert torch.equal(result.logits, every.logits[:, token : token + 1])
    assert deviation(result.logits, every.logits[:, token - 1 : token or None]) > 1e-3


def test_the_first_of_the_three_masks_is_the_published_answer():
    assert promise2d_preset("released").network.mask_token == 1
    assert promise2d_preset("clickvol").network.mask_token == 1


def test_predicted_points_are_answered_as_if_given():
    network = make_network(tiny("promise")).eval()
    image = make_image()
    result = network(image, points="auto")
    assert result.prompts.labels.tolist() == [[1, 1, 0, 0]] * 2
    assert result.prompts.points_xy_pixel.min() >= 0
    assert result.prompts.points_xy_pixel.max() <= SIDE
    assert torch.equal(network(image, points=result.prompts).logits, result.logits)


def test_given_points_go_before_predicted_ones():
    network = make_network(tiny("promise")).eval()
    features = network.encode_image(make_image())
    shift = network.pattern_embedding(features.embedding)
    expected = network.sam.decode(features, CLICKS, mask_token_shift=shift).logits[:, 1:2]
    assert torch.equal(network.decode(features, points=CLICKS).logits, expected)
    assert deviation(network.decode(features, points="auto").logits, expected) > 1e-3


def test_given_points_in_mode_apm_are_answered_by_sam():
    network = make_network(tiny("apm")).eval()
    image = make_image()
    result = network(image, points=CLICKS)
    assert torch.equal(result.logits, network.sam(image, CLICKS).logits[:, 1:2])


@pytest.mark.parametrize("make_config", [tiny, with_tiny_vit])
@pytest.mark.parametrize("mode", MODES)
def test_each_image_of_a_batch_is_as_if_alone(mode, make_config):
    network = make_network(make_config(mode)).eval()
    side = network.config.sam.image_side
    image = make_image(side=side)
    together = network(image, points=points_for(mode))
    assert together.logits.shape == (2, 1, 32, 32)
    assert together.iou.shape == (2,)
    for i in range(2):
        alone_points = "auto" if mode != "ips" else click(((10, 20), (40, 8))[i])
        alone = network(image[i : i + 1], points=alone_points)
        assert deviation(together.logits[i : i + 1], alone.logits) < 1e-5
    assert deviation(together.logits[0], together.logits[1]) > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded_it_says_the_same(mode, tmp_path):
    network = make_network(tiny(mode)).train()
    image = make_image()
    with torch.no_grad():
        network(image, points=points_for(mode))  # moves the averages of the BatchNorms
    expected = network.eval()(image, points=points_for(mode)).logits
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(99)
    other = Promise2d(tiny(mode)).eval()
    assert deviation(other(image, points=points_for(mode)).logits, expected) > 1e-3
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
    assert torch.equal(other(image, points=points_for(mode)).logits, expected)


def test_points_that_nothing_predicts_are_refused():
    network = make_network(tiny("ips"))
    with pytest.raises(ConfigError, match="mode 'ips' predicts no points; give them"):
        network(make_image(), points="auto")


# ---------------------------------------------------------------- points from a truth, masks from logits


def test_points_of_a_truth_carry_its_labels():
    truth = torch.zeros(3, 1, 8, 12)
    truth[0, 0, 2, 7] = 1
    truth[1, 0, :4] = 0.5
    prompts = prompts_from_truth(truth, 6, np.random.default_rng(0))
    assert prompts.points_xy_pixel.dtype == torch.float32
    assert prompts.points_xy_pixel.shape == (3, 6, 2)
    assert prompts.labels.sum(1).tolist() == [3, 3, 0]
    x, y = prompts.points_xy_pixel.long().unbind(-1)
    under = truth[torch.arange(3)[:, None], 0, y, x] > 0
    assert torch.equal(under, prompts.labels == 1)
    assert prompts.points_xy_pixel[0][prompts.labels[0] == 1].tolist() == [[7, 2]] * 3


def test_an_opening_takes_what_the_square_does_not_fit_into():
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 5:10, 4:11] = 1  # 5 x 7 stays
    mask[0, 0, 12:16, 2:9] = 1  # 4 rows at the border stay, as the mask could go on there
    expected = mask.clone()
    mask[0, 0, 7, 11:15] = 1  # a thread goes
    mask[0, 0, 0:2, 9] = 1  # and so do specks
    assert torch.equal(binary_mask(mask - 0.5, opening_side_pixel=5), expected > 0)
    assert torch.equal(binary_mask(mask - 0.5), mask > 0)


def test_away_from_the_border_the_opening_is_that_of_scipy():
    logits = F.avg_pool2d(noise(2, 1, 40, 40), 5, stride=1)
    logits[:, :, :6] = logits[:, :, -6:] = logits[..., :6] = logits[..., -6:] = -1
    result = binary_mask(logits, opening_side_pixel=3)
    expected = [ndimage.binary_opening(m > 0, np.ones((3, 3))) for m in logits[:, 0].numpy()]
    assert np.array_equal(result[:, 0].numpy(), np.stack(expected))
    assert 50 < result.sum() < (logits > 0).sum()


@pytest.mark.parametrize("side", [-1, 4])
def test_an_opening_needs_an_odd_side(side):
    with pytest.raises(ConfigError, match="must be odd and positive, or 0"):
        binary_mask(torch.zeros(1, 1, 4, 4), opening_side_pixel=side)


# ---------------------------------------------------------------- configurations


def test_the_released_preset_is_what_is_known_of_the_released_code():
    recipe = promise2d_preset("released")
    assert recipe.training == Promise2dTraining(num_sampled_points=16, sigmoid="twice")
    network = recipe.network
    assert network.mode == "promise"
    assert network.auto_prompter.form == "resnet"
    assert network.auto_prompter.num_points == 16
    assert network.auto_prompter.taps == (1, 2, 3)
    assert network.sam.image_encoder.taps == (2, 5, 8, 11)  # after blocks 3, 6, 9 and 12
    assert network.auto_prompter.image_side == 1024
    assert network.pattern.last_layer == "default"
    assert network.auto_prompter == type(network.auto_prompter)()
    assert network.pattern == type(network.pattern)()


def test_the_repaired_preset_differs_where_it_says():
    released, repaired = promise2d_preset("released"), promise2d_preset("clickvol")
    assert repaired.network == replace(
        released.network, pattern=replace(released.network.pattern, last_layer="zero")
    )
    assert repaired.training.sigmoid == "once"


@pytest.mark.parametrize("form", ["resnet", "cross"])
@pytest.mark.parametrize(
    ("foundation", "widths", "sides"),
    [
        ("vit_b", (768,) * 3, (64,) * 3),
        ("vit_l", (1024,) * 3, (64,) * 3),
        ("vit_h", (1280,) * 3, (64,) * 3),
        ("litemedsam", (128, 160, 320), (128, 64, 64)),
        ("tiny", (24, 24), (8, 8)),
    ],
)
def test_every_foundation_has_a_network(foundation, widths, sides, form):
    config = promise2d_preset("clickvol", foundation, "promise", form).network
    assert config.auto_prompter.tap_widths == widths
    assert config.auto_prompter.tap_sides == sides
    with torch.device("meta"):
        Promise2d(config)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="no preset 'best'; choose one of released, clickvol"):
        promise2d_preset("best")
    with pytest.raises(ConfigError, match="no preset 'vit_x'"):
        promise2d_preset("released", "vit_x")


@pytest.mark.parametrize(
    ("mode", "change", "message"),
    [
        ("apm", {"mode": "promise"}, "'promise' goes with auto_prompter and pattern and nothing"),
        ("promise", {"mode": "ips"}, "mode 'ips' goes with pattern and nothing else"),
        ("ips", {"pattern": None}, "mode 'ips' goes with pattern"),
        ("ips", {"mask_token": 4}, "mask_token is 4, but this SAM has the masks 0 to 3"),
        ("apm", {"auto_prompter": {"image_side": 32}}, "image_side is 32, but sam asks for 64"),
        ("apm", {"auto_prompter": {"tap_widths": (24, 8)}}, r"is \(\(24, 8\), \(8, 8\)\), but sam"),
        ("apm", {"auto_prompter": {"tap_sides": (16, 8)}}, r"is \(\(24, 16\), \(24, 8\)\), but"),
        ("apm", {"auto_prompter": {"taps": (1, 2)}}, "but the encoder has 2 taps"),
        ("ips", {"pattern": {"width": 16}}, "pattern.width is 16, but sam asks for 32"),
        ("ips", {"pattern": {"num_mask_tokens": 3}}, "num_mask_tokens is 3, but sam asks for 4"),
    ],
)
def test_contradictions_are_refused(mode, change, message):
    config = tiny(mode)
    change = {
        name: replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in change.items()
    }
    with pytest.raises(ConfigError, match=message):
        replace(config, **change)


# ---------------------------------------------------------------- learning


def responsive(mode):
    """A frozen random SAM that can answer: wider than the tiny one, its weights drawn to keep variance.

    The tiny preset with torch's default start has four fine channels of nearly constant value: no shift of
    the tokens makes a mask of them.
    """
    width = 192
    config = promise2d_network("tiny", mode, form="resnet", last_layer="zero", num_points=1)
    sam = Sam2dConfig(
        image_encoder=SamVit2dConfig(
            image_side=SIDE,
            patch_side=8,
            width=48,
            depth=2,
            num_heads=2,
            mlp_ratio=2.0,
            window=4,
            global_blocks=(1,),
            taps=(0, 1),
            feature_width=width,
        ),
        prompt=SamPromptConfig(width=width, image_side=SIDE, grid_side=8, mask_channels=8),
        decoder=SamMaskDecoderConfig(width=width, num_heads=4, mlp_width=256, iou_width=24),
    )
    pattern = config.pattern and replace(config.pattern, width=width, hidden_width=4 * width)
    prompter = config.auto_prompter and replace(
        config.auto_prompter,
        tap_widths=(48, 48),
        mixed_width=16,
        stage_widths=(8, 16),
        stage_depths=(1, 1),
    )
    torch.manual_seed(0)
    network = Promise2d(Promise2dConfig(sam=sam, mode=mode, pattern=pattern, auto_prompter=prompter))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in network.sam.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                weight = module.weight
                is_transposed = isinstance(module, nn.ConvTranspose2d)
                fan = weight.shape[0] if is_transposed else weight[0].numel()
                weight.copy_(1.2 * torch.randn(weight.shape, generator=generator) / fan**0.5)
    return network.train()


def disc(x, y, radius):
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


A, B = disc(20, 22, 11), disc(46, 44, 9)


def phantom(*discs):
    drawn = sum(d.float() for d in discs)
    return (0.3 * noise(SIDE, SIDE) + 1.5 * drawn).expand(3, -1, -1)


def dice_on_logits(logits, truth):
    """Compare at the resolution of the logits."""
    small = F.interpolate(truth[None, None].float(), size=logits.shape, mode="bilinear") > 0.5
    result, small = logits > 0, small[0, 0]
    return float(2 * (result & small).sum() / (result.sum() + small.sum()))


def train(network, image, targets, points, steps):
    """Fit with cached features, as a frozen encoder allows."""
    features = network.encode_image(image)
    optimiser = torch.optim.Adam(network.trainable_parameters().values(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        bce_dice(network.decode(features, points=points).logits, targets).backward()
        optimiser.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        return network.decode(features, points=points).logits[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ips", "promise"])
def test_one_phantom_is_learned(mode):
    network = responsive(mode)
    # Beside its mirror image, so that the BatchNorms see a batch.
    image = torch.stack([phantom(A), phantom(A).flip(-1)])
    targets = torch.stack([A, A.flip(-1)])[:, None].float()
    points = "auto" if mode == "promise" else click((20, 22), (SIDE - 21, 22))
    with torch.no_grad():
        before = network(image, points=points).logits[0, 0]
    after = train(network, image, targets, points, steps=100)[0]
    assert dice_on_logits(before, A) < 0.4
    assert dice_on_logits(after, A) > 0.9


@pytest.mark.slow
def test_a_moved_click_moves_the_mask():
    network = responsive("ips")
    image = phantom(A, B).expand(2, -1, -1, -1)
    targets = torch.stack([A, B])[:, None].float()
    at_a, at_b = train(network, image, targets, click((20, 22), (46, 44)), steps=300)
    # The shift is the same for both: what tells them apart is the click, read by a decoder never trained.
    assert dice_on_logits(at_a, A) > dice_on_logits(at_a, B) + 0.4
    assert dice_on_logits(at_b, B) > dice_on_logits(at_b, A) + 0.4
