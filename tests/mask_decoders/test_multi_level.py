import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import ImageFeatures
from clickvol.mask_decoders.multi_level import (
    MultiLevelDecoder,
    MultiLevelDecoderConfig,
    channels_last,
    on_decoder_grid,
)
from reference.compare import deviation, noise, randomise
from reference.plain_decoder import plain_decoder


def answer(decoder, prepared, deepest, prompt_maps=None):
    return decoder.masks(decoder.join_maps(prepared, deepest, prompt_maps))


def make_decoder(**changes):
    options = {"feature_width": 5, "num_levels": 3, "width": 4, "image_width": 6}
    return randomise(MultiLevelDecoder(MultiLevelDecoderConfig(**(options | changes))))


def make_inputs(token_stride=4, tokens=(2, 3, 4), levels=3):
    maps = tuple(noise(2, 5, *tokens, seed=level) for level in range(levels))
    patch = noise(2, 1, *(n * token_stride for n in tokens), seed=9)
    return maps, patch


def run_split(decoder, maps, patch, prompt_maps=None):
    # The deepest map is not known when the patch is prepared.
    earlier = ImageFeatures((*maps[:-1], torch.full_like(maps[-1], torch.nan)))
    return answer(decoder, decoder.prepare(earlier, patch), maps[-1], prompt_maps)


@pytest.mark.parametrize("token_stride", [2, 4, 8])
def test_the_split_is_one_convolution_over_everything(token_stride):
    decoder = make_decoder(token_stride=token_stride)
    maps, patch = make_inputs(token_stride)
    result = run_split(decoder, maps, patch)
    assert result.shape == (2, 2, *patch.shape[2:])
    assert deviation(result, plain_decoder(decoder, maps, patch)) < 1e-5


FORMS = {
    "released ProMISe-3D": {},
    "ProMISe-R": {"image_fusion": "added", "image_width": 4},
    "ProMISe-R, one level": {"image_fusion": "added", "image_width": 4, "num_levels": 1},
    "no branch": {"image_fusion": "none", "image_width": 0},
    "3DSAM-adapter": {
        "level_enlargement": "trilinear",
        "image_fusion": "none",
        "image_width": 0,
    },
    "its automatic form": {
        "level_enlargement": "trilinear",
        "image_fusion": "none",
        "image_width": 0,
        "token_stride": 8,
        "decoder_stride": 4,
    },
    "nothing enlarged": {"token_stride": 2},
    "one level": {"num_levels": 1},
    "one level, nothing else": {"num_levels": 1, "image_fusion": "none", "image_width": 0},
}


@pytest.mark.parametrize("tokens", [(2, 3, 4), (1, 2, 1)])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_one_convolution_over_everything(form, gradients, tokens):
    decoder = make_decoder(**form)
    config = decoder.config
    maps, patch = make_inputs(config.token_stride, tokens, config.num_levels)
    with torch.set_grad_enabled(gradients):
        result = run_split(decoder, maps, patch)
    assert result.shape == (2, 2, *patch.shape[2:])
    # A normalised map of few places may be nearly constant, which enlarges rounding.
    assert deviation(result, plain_decoder(decoder, maps, patch)) < 5e-5


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_gradients_are_those_of_one_convolution_over_everything(form):
    decoder = make_decoder(**form)
    config = decoder.config
    maps, patch = make_inputs(config.token_stride, levels=config.num_levels)

    def gradients(decode):
        inputs = [fmap.clone().requires_grad_() for fmap in maps]
        decoder.zero_grad()
        decode(inputs).square().sum().backward()
        result = {name: p.grad for name, p in decoder.named_parameters()}
        return result | {f"map {i}": fmap.grad for i, fmap in enumerate(inputs)}

    expected = gradients(lambda inputs: plain_decoder(decoder, inputs, patch))
    result = gradients(
        lambda inputs: answer(decoder, decoder.prepare(ImageFeatures(inputs), patch), inputs[-1])
    )
    for name, gradient in result.items():
        assert deviation(gradient, expected[name]) < 2e-4 * float(expected[name].abs().max()), name


def test_the_biases_of_transposed_convolutions_count_and_end_at_the_border():
    decoder = make_decoder()
    maps, patch = make_inputs()
    with_biases = run_split(decoder, maps, patch)
    with torch.no_grad():
        for up in decoder.level_ups:
            up.bias += 3.0
    raised = run_split(decoder, maps, patch)
    assert deviation(raised, plain_decoder(decoder, maps, patch)) < 1e-5
    # InstanceNorm takes what is the same everywhere: only the border is left of a raised bias.
    assert deviation(raised, with_biases) > 1e-2


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_can_be_told_to_be_last(channels):
    x = noise(2, channels, 3, 4, 5)
    result = channels_last(x)
    assert torch.equal(result, x)
    assert result.stride()[1] == 1
    assert result.stride()[-1] == channels


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_any_number_of_levels(levels):
    decoder = make_decoder(num_levels=levels)
    maps, patch = make_inputs(levels=levels)
    assert deviation(run_split(decoder, maps, patch), plain_decoder(decoder, maps, patch)) < 1e-5


def test_drawn_prompts_come_last_in_the_concatenation():
    decoder = make_decoder(num_prompt_maps=3, joined_scales=(6, 8))
    maps, patch = make_inputs()
    drawn = noise(2, 3, 4, 6, 8, seed=5)
    result = run_split(decoder, maps, patch, drawn)
    assert deviation(result, plain_decoder(decoder, maps, patch, drawn)) < 1e-5
    without = run_split(decoder, maps, patch, torch.zeros_like(drawn))
    assert deviation(result, without) > 1e-2


def test_prepared_once_is_prepared_each_time():
    decoder = make_decoder()
    maps, patch = make_inputs()
    prepared = decoder.prepare(ImageFeatures(maps), patch)
    for seed in (1, 2, 3):
        deepest = noise(*maps[-1].shape, seed=20 + seed)
        fresh = answer(decoder, decoder.prepare(ImageFeatures(maps), patch), deepest)
        assert torch.equal(answer(decoder, prepared, deepest), fresh)


def test_samples_of_a_batch_do_not_meet():
    decoder = make_decoder()
    maps, patch = make_inputs()
    together = run_split(decoder, maps, patch)
    for index in (0, 1):
        one = slice(index, index + 1)
        alone = run_split(decoder, tuple(m[one] for m in maps), patch[one])
        assert deviation(together[one], alone) < 1e-5


def test_the_image_is_shrunk_trilinear_at_one_half():
    patch = noise(2, 1, 4, 6, 8)
    expected = torch.nn.functional.interpolate(patch, scale_factor=0.5, mode="trilinear", align_corners=False)
    assert deviation(on_decoder_grid(patch, 2), expected) < 1e-6
    assert on_decoder_grid(torch.arange(8.0).view(1, 1, 2, 2, 2), 2).item() == 3.5


def test_the_published_decoder_joins_641_channels():
    with torch.device("meta"):
        decoder = MultiLevelDecoder(MultiLevelDecoderConfig())
    assert decoder.join.weight.shape == (128, 641, 3, 3, 3)
    assert sum(p.numel() for p in decoder.parameters()) == 8_501_248


def test_the_published_decoder_of_3dsam_adapter_joins_513_channels():
    config = MultiLevelDecoderConfig(level_enlargement="trilinear", image_fusion="none", image_width=0)
    with torch.device("meta"):
        decoder = MultiLevelDecoder(config)
    assert decoder.join.weight.shape == (128, 513, 3, 3, 3)
    assert sum(p.numel() for p in decoder.parameters()) == 7_088_256
    assert decoder.image_branch is None
    assert not list(decoder.level_ups.parameters())


def test_the_added_branch_joins_as_much_as_none():
    with torch.device("meta"):
        decoder = MultiLevelDecoder(MultiLevelDecoderConfig(image_fusion="added"))
    assert decoder.join.weight.shape == (128, 513, 3, 3, 3)
    # 27 x (1 x 128 + 128 x 128) for the branch, 4 x (128 x 128 x 8 + 128) for the enlargements.
    assert sum(p.numel() for p in decoder.parameters()) == 7_088_256 + 445_824 + 524_800


@pytest.mark.parametrize(
    ("fusion", "image_width", "wanted"),
    [("none", 128, 0), ("added", 64, 128), ("added", 0, 128), ("concatenated", 0, 1)],
)
def test_an_image_branch_that_contradicts_its_use_is_refused(fusion, image_width, wanted):
    message = f"image_width is {image_width}, but image_fusion '{fusion}' asks for {wanted}$"
    with pytest.raises(ConfigError, match=message):
        MultiLevelDecoderConfig(image_fusion=fusion, image_width=image_width)


@pytest.mark.parametrize(("token_stride", "decoder_stride"), [(4, 8), (6, 4), (2, 4)])
def test_maps_that_cannot_be_enlarged_to_the_decoders_grid_are_refused(token_stride, decoder_stride):
    with pytest.raises(ConfigError, match=f"token_stride is {token_stride}, .*{decoder_stride}th"):
        MultiLevelDecoderConfig(token_stride=token_stride, decoder_stride=decoder_stride)


@pytest.mark.parametrize("token_stride", [0, 1, 5])
def test_a_token_stride_that_has_no_half_is_refused(token_stride):
    with pytest.raises(ConfigError, match=f"token_stride is {token_stride}"):
        MultiLevelDecoderConfig(token_stride=token_stride)
