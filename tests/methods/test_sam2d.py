from dataclasses import replace

import numpy as np
import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.image_encoders.tiny_vit import TinyVitConfig
from clickvol.methods.sam2d import (
    Sam2d,
    Sam2dConfig,
    SquareFit,
    logits_to_image,
    prepare_image,
    sam2d_preset,
    square_fit,
)
from clickvol.prompt_encoders.sam_prompts import Prompts2d
from reference.compare import deviation, noise, randomise

TINY = sam2d_preset("tiny")
PLAIN = replace(TINY, input_range="0..1", pixel_mean=(0.0,) * 3, pixel_std=(1.0,) * 3)


def make_network():
    torch.manual_seed(0)
    return randomise(Sam2d(TINY), scale=1.0)


def make_prompts():
    points = torch.tensor([[[10.0, 50.0], [33.0, 7.0]], [[40.0, 40.0], [0.0, 0.0]]])
    return Prompts2d(points_xy_pixel=points, labels=torch.tensor([[1, 0], [1, -1]]))


def test_the_three_parts_are_wired():
    network, image, prompts = make_network(), noise(2, 3, 64, 64), make_prompts()
    features = network.image_encoder(image)
    embedded = network.prompt_encoder(prompts, 2)
    positions = network.prompt_encoder.grid_positions()
    expected = network.mask_decoder(features.embedding, positions, embedded)
    result = network(image, prompts)
    assert result.logits.shape == (2, 4, 32, 32)
    assert torch.equal(result.logits, expected.logits)
    assert torch.equal(result.iou, expected.iou)
    assert [tap.shape for tap in network.encode_image(image).taps] == [(2, 24, 8, 8)] * 2


def test_a_zero_shift_is_sam_exactly_and_another_is_not():
    network, prompts = make_network(), make_prompts()
    features = network.encode_image(noise(2, 3, 64, 64))
    plain = network.decode(features, prompts).logits
    shift = torch.zeros(2, 4, 32)
    assert torch.equal(network.decode(features, prompts, mask_token_shift=shift).logits, plain)
    shift += 1.0
    moved = network.decode(features, prompts, mask_token_shift=shift).logits
    assert deviation(moved, plain) > 1e-2


def test_a_gradient_reaches_the_points_through_frozen_weights():
    network, prompts = make_network().requires_grad_(False), make_prompts()
    points = prompts.points_xy_pixel.requires_grad_()
    network(noise(2, 3, 64, 64), prompts).logits[:, 0].square().mean().backward()
    assert points.grad[0].abs().min() > 0
    assert points.grad[1, 0].abs().min() > 0
    assert points.grad[1, 1].abs().max() == 0  # padding
    assert all(parameter.grad is None for parameter in network.parameters())


def test_images_of_a_batch_are_apart():
    network, image, prompts = make_network(), noise(2, 3, 64, 64), make_prompts()
    second = Prompts2d(points_xy_pixel=prompts.points_xy_pixel[1:], labels=prompts.labels[1:])
    assert deviation(network(image, prompts).logits[1:], network(image[1:], second).logits) < 1e-5


def test_a_state_goes_into_another_network():
    network, other = make_network(), Sam2d(TINY)
    other.load_state_dict(network.state_dict())
    image, prompts = noise(2, 3, 64, 64), make_prompts()
    assert torch.equal(network(image, prompts).logits, other(image, prompts).logits)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_sam_takes_1024_pixels_of_0_to_255(name):
    config = sam2d_preset(name)
    assert config.image_side == 1024
    assert config.prompt.grid_side == 64
    assert config.input_range == "0..255"


def test_litemedsam_has_the_published_count_of_numbers():
    with torch.device("meta"):
        network = Sam2d(sam2d_preset("litemedsam"))
    state = network.state_dict()
    assert len(state) == 435
    parts = {"image_encoder": 0, "prompt_encoder": 0, "mask_decoder": 0}
    for name, tensor in state.items():
        parts[name.split(".")[0]] += tensor.numel()
    assert parts == {
        "image_encoder": 5_736_623,
        "prompt_encoder": 6_476,
        "mask_decoder": 4_058_340,
    }


def test_another_name_is_refused():
    with pytest.raises(ConfigError, match="no preset 'vit_x'; choose one of vit_b, vit_l"):
        sam2d_preset("vit_x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": replace(TINY.prompt, width=16)}, "prompt.width is 16, .* asks for 32"),
        ({"decoder": replace(TINY.decoder, width=16)}, "decoder.width is 16"),
        ({"prompt": replace(TINY.prompt, image_side=32)}, "prompt.image_side is 32"),
        ({"prompt": replace(TINY.prompt, grid_side=4)}, "prompt.grid_side is 4"),
        ({"pixel_std": (1.0, 0.0, 1.0)}, "pixel_std"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)


def test_the_grid_of_a_tiny_vit_is_checked_too():
    with pytest.raises(ConfigError, match=r"prompt\.image_side is 1024"):
        Sam2dConfig(image_encoder=TinyVitConfig())


@pytest.mark.parametrize(
    ("shape", "resized"),
    [
        ((64, 64), (64, 64)),
        ((32, 16), (64, 32)),
        ((100, 128), (50, 64)),
        ((3, 1000), (1, 64)),
        # 100 * 64 / 150 is 42.67.
        ((100, 150), (43, 64)),
    ],
)
def test_the_longer_side_fills_the_square(shape, resized):
    assert square_fit(shape, 64) == SquareFit(shape, resized, 64)


def test_a_fit_keeps_centres_centres():
    fit = square_fit((16, 32), 64)
    # Twice as large: the first pixel becomes the pixels 0 and 1, whose middle is at 0.5.
    points = torch.tensor([[0.0, 0.0], [31.0, 15.0], [2.0, 3.0]])
    assert fit.to_network(points).tolist() == [[0.5, 0.5], [62.5, 30.5], [4.5, 6.5]]


def test_x_of_a_fit_goes_with_the_width():
    fit = SquareFit(image_shape_hw=(10, 20), resized_shape_hw=(30, 80), side_pixel=80)
    assert fit.to_network(torch.tensor([1.0, 1.0])).tolist() == [5.5, 4.0]
    assert fit.to_network(torch.tensor([[1.0, 1.0, 0.0, 0.0]])).tolist() == [[5.5, 4.0, 1.5, 1.0]]


@pytest.mark.parametrize("shape", [(16, 32), (201, 77), (300, 128)])
def test_a_fit_leads_there_and_back(shape):
    fit = square_fit(shape, 64)
    points = 50 * noise(3, 5, 2)
    assert deviation(fit.to_image(fit.to_network(points)), points) < 1e-4
    boxes = 50 * noise(3, 4)
    assert deviation(fit.to_image(fit.to_network(boxes)), boxes) < 1e-4


def test_a_gradient_passes_a_fit():
    points = torch.zeros(1, 2, requires_grad=True)
    square_fit((16, 32), 64).to_network(points).sum().backward()
    assert points.grad.tolist() == [[2.0, 2.0]]


def test_a_fit_of_no_pixels_is_refused():
    with pytest.raises(ConfigError, match="at least one pixel"):
        square_fit((0, 4), 64)


def test_grey_and_colour_of_both_types_are_one_image():
    grey = torch.arange(64 * 64).view(64, 64) % 256
    result, fit = prepare_image(grey.to(torch.uint8), TINY)
    assert fit.resized_shape_hw == (64, 64)
    mean, std = torch.tensor(TINY.pixel_mean), torch.tensor(TINY.pixel_std)
    expected = (grey[None] - mean[:, None, None]) / std[:, None, None]
    assert deviation(result, expected) < 1e-5
    colour = grey[..., None].expand(-1, -1, 3)
    for same in (colour.to(torch.uint8), grey / 255, colour.double() / 255):
        assert deviation(prepare_image(same, TINY)[0], result) < 1e-5


def test_an_input_of_0_to_1_is_left_as_it_is():
    image = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prepare_image(image, PLAIN)[0], image.expand(3, -1, -1))


def test_channels_keep_their_order():
    image = torch.tensor([0.1, 0.2, 0.3]).expand(64, 64, 3)
    assert prepare_image(image, PLAIN)[0][:, 5, 5].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_padding_is_zero_after_the_normalisation_at_right_or_bottom():
    wide, _ = prepare_image(torch.ones(16, 32), TINY)
    assert wide[:, 32:].abs().max() == 0
    assert wide[:, :32].min() > 2
    tall, _ = prepare_image(torch.ones(32, 16), TINY)
    assert tall[:, :, 32:].abs().max() == 0
    assert tall[:, :, :32].min() > 2


def test_an_image_that_shrinks_is_averaged():
    fine = torch.zeros(512, 512)
    fine[::2] = 1.0
    assert deviation(prepare_image(fine, PLAIN)[0], torch.full((3, 64, 64), 0.5)) < 0.05


def test_a_pixel_is_found_where_the_fit_says():
    image = torch.zeros(40, 100)
    image[30, 70] = 1.0
    result, fit = prepare_image(image, PLAIN)
    weights = result[0] / result[0].sum()
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    centre = torch.stack([(weights * x).sum(), (weights * y).sum()])
    assert deviation(centre, fit.to_network(torch.tensor([70.0, 30.0]))) < 0.2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 64, 64), r"shape \(3, 64, 64\), but \(H, W\) or \(H, W, 3\)"),
        (torch.zeros(64), r"shape \(64,\)"),
        (torch.zeros(8, 8, dtype=torch.int16), "stored as torch.int16"),
        (torch.full((8, 8), 40.0), "values from 40 to 40, but 0..1"),
        (torch.full((8, 8), -0.5), "values from -0.5"),
        (torch.full((8, 8), np.nan), "values from nan"),
        (torch.zeros(0, 8), "at least one pixel"),
    ],
)
def test_another_image_is_refused(image, message):
    with pytest.raises(ConfigError, match=message):
        prepare_image(image, TINY)


def test_a_ramp_comes_back_on_the_image():
    """Logits that grow by place keep their value at each place, away from the borders."""
    fit = square_fit((40, 100), 64)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    # A cell of the logits is two pixels of the input: cell c is around pixel 2 c + 0.5.
    logits = torch.stack([2 * x + 0.5, 2 * y + 0.5])[None]
    result = logits_to_image(logits, fit)
    assert result.shape == (1, 2, 40, 100)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(100.0), indexing="ij")
    expected = fit.to_network(torch.stack([x, y], -1)).permute(2, 0, 1)
    assert deviation(result[0, :, 4:-4, 4:-4], expected[:, 4:-4, 4:-4]) < 0.02


def test_padding_is_cropped_from_logits():
    logits = torch.full((1, 1, 32, 32), -8.0)
    logits[:, :, :16] = 8.0  # the upper half, which is the image
    result = logits_to_image(logits, square_fit((32, 64), 64))
    assert result[0, 0, :30].min() == pytest.approx(8.0)
    assert result.shape == (1, 1, 32, 64)


def test_logits_that_shrink_are_averaged():
    logits = torch.zeros(1, 1, 64, 64)
    logits[..., ::2] = 1.0
    result = logits_to_image(logits, square_fit((8, 8), 64))
    assert deviation(result, torch.full((1, 1, 8, 8), 0.5)) < 0.05
