from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clickvol.errors import ConfigError, DamagedWeightsError
from clickvol.image_encoders.lifted_tiny_vit import (
    LiftedTinyVit3d,
    LiftedTinyVitConfig,
    average_blocks,
    images_from_patch,
    slice_by_slice,
)
from clickvol.image_encoders.tiny_vit import TinyVit, TinyVitConfig
from reference.compare import deviation, noise, randomise
from reference.plain_tiny_vit import plain_stages, randomise_norms

SLICES = TinyVitConfig(
    widths=(4, 6, 8, 12),
    depths=(1, 2, 1, 1),
    num_heads=(1, 2, 2, 3),
    windows=(3, 3, 4, 3),
    feature_width=10,
)
TINY = LiftedTinyVitConfig(slice_encoder=SLICES, slice_steps=(1, 1, 1, 1), feature_width=5, token_stride=4)
SIZES = [(4, 8, 12), (8, 12, 4), (12, 16, 8)]


def make_lifted(config=TINY, *, adapters_act=False):
    """A lifted network with random 2D weights; its adapters do nothing unless said."""
    torch.manual_seed(0)
    lifted = LiftedTinyVit3d(config)
    randomise_norms(lifted.slice_encoder)
    randomise(lifted.necks)
    if adapters_act:
        randomise(lifted.adapters)
    return lifted.eval()


def two_dimensional(lifted):
    """The 2D network with the same weights."""
    torch.manual_seed(1)
    network = TinyVit(lifted.config.slice_encoder)
    network.load_state_dict(lifted.slice_encoder.state_dict(), strict=False)
    return network.eval()


def test_intensities_by_hand():
    # -1.6 is -160 HU and 0 of the 2D network; 1.6 is 240 HU and 1; 0.4 is 90 HU, five eighths up.
    patch = torch.tensor([-1.6, 1.6, 0.0, 0.4, -5.0, 5.0]).view(1, 1, 1, 2, 3)
    images = images_from_patch(patch, 1)
    assert images.shape == (1, 1, 2, 3, 3)
    expected = torch.tensor([0.0, 1.0, 0.5, 0.625, 0.0, 1.0]).view(2, 3)
    for channel in range(3):
        assert torch.allclose(images[0, 0, :, :, channel], expected)


def test_enlargement_is_in_the_plane_alone():
    patch = torch.zeros(1, 1, 2, 1, 2)
    patch[0, 0, 0, 0] = torch.tensor([-1.6, 1.6])
    images = images_from_patch(patch, 2)
    assert images.shape == (1, 2, 2, 4, 3)
    # Half-voxel centres: 0, a quarter, three quarters, 1; the other slice stays grey.
    assert torch.allclose(images[0, 0, :, :, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(2, 4))
    assert torch.allclose(images[0, 1], torch.tensor(0.5))


def test_slices_come_back_in_their_places():
    tokens = torch.arange(2 * 3 * 4 * 5 * 2.0).view(2, 3, 4, 5, 2)
    seen = []

    def turned(images):
        seen.append(tuple(images.shape))
        return images.mT[:, :1]

    for whole in (True, False):
        result = slice_by_slice(turned, tokens, whole=whole)
        assert torch.equal(result, tokens.transpose(2, 3)[..., :1])
    assert seen == [(6, 2, 4, 5)] * 2


def test_slices_go_piece_by_piece_only_where_allowed(monkeypatch):
    monkeypatch.setattr("clickvol.image_encoders.lifted_tiny_vit._CHUNK_PIXELS", 45)
    seen = []

    def record(images):
        seen.append(images.shape[0])
        return images

    tokens = noise(2, 3, 4, 5, 2)
    assert torch.equal(slice_by_slice(record, tokens, whole=False), tokens)
    assert seen == [2, 2, 2]
    slice_by_slice(record, tokens, whole=True)
    assert seen[3:] == [6]


def test_blocks_are_averaged_by_hand():
    tokens = torch.arange(8.0).view(1, 2, 2, 2, 1)
    assert average_blocks(tokens, (2, 1, 1)).flatten().tolist() == [2.0, 3.0, 4.0, 5.0]
    assert average_blocks(tokens, (1, 2, 1)).flatten().tolist() == [1.0, 2.0, 5.0, 6.0]
    assert average_blocks(tokens, (1, 1, 2)).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize("enlargement", [1, 2])
@pytest.mark.parametrize("shape", SIZES)
def test_without_adapters_every_slice_is_the_2d_networks_alone(shape, enlargement):
    lifted = make_lifted(replace(TINY, in_plane_enlargement=enlargement))
    patch = noise(2, 1, *shape)
    result = lifted.stage_outputs(patch)[0]
    network = two_dimensional(lifted)
    for sample in (0, 1):
        for d in (0, shape[0] - 1):
            one = ((patch[sample, :, d] + 1.6) / 3.2).clamp(0, 1)
            one = F.interpolate(one[None], scale_factor=enlargement, mode="bilinear")
            expected = network(one.expand(1, 3, -1, -1)).taps
            for ours, plain in zip(result, expected, strict=True):
                assert deviation(ours[sample, d].movedim(-1, 0), plain[0]) < 1e-4


def plain_maps(lifted, patch):
    """Feature maps of one sample: images averaged first, then each slice alone, then cells averaged."""
    config = lifted.config
    step, stride, ratio = config.slice_steps[0], config.token_stride, config.in_plane_enlargement
    grid = tuple(n // stride for n in patch.shape[2:])
    images = ((patch[0, 0] + 1.6) / 3.2).clamp(0, 1)
    images = F.interpolate(images[None], scale_factor=ratio, mode="bilinear")[0]
    images = torch.stack([images[d : d + step].mean(0) for d in range(0, len(images), step)])
    per_slice = [plain_stages(lifted.slice_encoder, one.expand(1, 3, -1, -1)) for one in images]
    maps = []
    for index, neck in enumerate(lifted.necks):
        stack = torch.stack([taps[index][0] for taps in per_slice], dim=1)[None]
        x = F.adaptive_avg_pool3d(stack, grid)
        x = torch.einsum("fe,bedhw->bdhwf", neck[0].weight[:, :, 0, 0, 0], x)
        x = F.layer_norm(x, x.shape[-1:], neck[1].weight, neck[1].bias, 1e-6)
        x = F.conv3d(x.movedim(-1, 1), neck[2].weight, padding=1).movedim(1, -1)
        x = F.layer_norm(x, x.shape[-1:], neck[3].weight, neck[3].bias, 1e-6)
        maps.append(x.movedim(-1, 1))
    return maps


@pytest.mark.parametrize("change", [{}, {"slice_steps": (2, 1, 1, 1), "in_plane_enlargement": 2}])
@pytest.mark.parametrize("shape", SIZES[:2])
def test_feature_maps_are_the_plain_ones(shape, change):
    lifted = make_lifted(replace(TINY, **change))
    patch = noise(1, 1, *shape)
    features = lifted(patch)
    assert features.deepest is features.maps[-1]
    for ours, plain in zip(features.maps, plain_maps(lifted, patch), strict=True):
        assert ours.shape == (1, 5, *[n // 4 for n in shape])
        assert deviation(ours, plain) < 1e-4


def test_steps_average_neighbouring_slices_before_their_stage():
    lifted = make_lifted(replace(TINY, slice_steps=(1, 2, 1, 2)))
    every = make_lifted().stage_outputs(noise(1, 1, 8, 8, 12))[0]
    thinned = lifted.stage_outputs(noise(1, 1, 8, 8, 12))[0]
    assert [out.shape[1] for out in thinned] == [8, 4, 4, 2]
    assert deviation(thinned[0], every[0]) == 0
    stages = lifted.slice_encoder.stages
    left = stages[0].leave(every[0][0, 2:4].movedim(-1, 1))
    expected = stages[1](left.mean(0, keepdim=True))
    assert deviation(thinned[1][0, 1:2].movedim(-1, 1), expected) < 1e-5


def test_an_adapter_acts_after_its_stage():
    lifted, patch = make_lifted(), noise(1, 1, 4, 8, 8)
    before = lifted.stage_outputs(patch)[0]
    randomise(lifted.adapters[2])
    after = lifted.stage_outputs(patch)[0]
    assert [deviation(a, b) > 1e-3 for a, b in zip(after, before, strict=True)] == [
        False,
        False,
        True,
        True,
    ]
    expected = before[2] + lifted.adapters[2](before[2])
    assert deviation(after[2], expected) < 1e-6


def test_information_flows_along_d_only_through_adapters():
    patch = noise(1, 1, 8, 8, 8)
    changed = patch.clone()
    changed[:, :, 3] = noise(8, 8, seed=1)
    still, acting = make_lifted(), make_lifted(adapters_act=True)

    def touched(lifted, stage):
        difference = lifted.stage_outputs(changed)[0][stage] - lifted.stage_outputs(patch)[0][stage]
        return (difference.abs().amax(dim=(0, 2, 3, 4)) > 1e-6).nonzero().flatten().tolist()

    assert touched(still, 3) == [3]
    # Every adapter carries it one slice further.
    assert touched(acting, 0) == [2, 3, 4]
    assert touched(acting, 1) == [1, 2, 3, 4, 5]
    assert touched(acting, 2) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", SIZES)
def test_a_batch_is_its_samples(shape):
    lifted, patch = make_lifted(adapters_act=True), noise(2, 1, *shape)
    together = lifted(patch).maps
    assert len(together) == len(TINY.taps) == 4
    for index in (0, 1):
        for joint, alone in zip(together, lifted(patch[index : index + 1]).maps, strict=True):
            assert joint.shape == (2, 5, *[n // 4 for n in shape])
            assert deviation(joint[index : index + 1], alone) < 1e-5


def test_inference_is_the_path_with_gradient(monkeypatch):
    monkeypatch.setattr("clickvol.image_encoders.lifted_tiny_vit._CHUNK_PIXELS", 200)
    lifted, patch = make_lifted(adapters_act=True), noise(2, 1, 8, 8, 12)
    with torch.inference_mode():
        result = lifted(patch).maps
    for ours, expected in zip(result, lifted(patch).maps, strict=True):
        assert deviation(ours, expected) < 1e-5


def test_gradients_reach_every_parameter():
    lifted = make_lifted(replace(TINY, frozen_norms=False), adapters_act=True).train()
    sum(m.square().sum() for m in lifted(noise(2, 1, 4, 12, 12)).maps).backward()
    for name, parameter in lifted.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_reach_the_rest_behind_a_frozen_foundation():
    lifted = make_lifted().train()
    foundation = lifted.foundation_parameter_names()
    for name in foundation:
        lifted.get_parameter(name).requires_grad_(False)
    sum(m.square().sum() for m in lifted(noise(2, 1, 4, 8, 8)).maps).backward()
    # Adapters that start at zero learn through their last layer first.
    zero_start = (".down.", ".mix.")
    for name, parameter in lifted.named_parameters():
        if name in foundation:
            assert parameter.grad is None, name
        elif not any(part in name for part in zero_start):
            assert parameter.grad.abs().max() > 0, name


def test_the_foundation_is_the_2d_network_without_its_neck():
    lifted = make_lifted()
    names = lifted.foundation_parameter_names()
    expected = [name for name, _ in TinyVit(SLICES).named_parameters() if "neck" not in name]
    assert sorted(names) == sorted(f"slice_encoder.{name}" for name in expected)
    others = {name.split(".")[0] for name, _ in lifted.named_parameters() if name not in names}
    assert others == {"adapters", "necks"}


def test_frozen_norms_keep_their_statistics_in_training():
    name = "patch_embed.seq.0.bn.running_mean"
    for frozen in (True, False):
        lifted = make_lifted(replace(TINY, frozen_norms=frozen)).train()
        modes = {part.training for part in lifted.modules() if isinstance(part, nn.BatchNorm2d)}
        assert modes == {not frozen}
        assert lifted.adapters[0].training
        before = lifted.slice_encoder.state_dict()[name].clone()
        lifted(noise(2, 1, 4, 8, 8))
        assert torch.equal(before, lifted.slice_encoder.state_dict()[name]) is frozen


def test_frozen_norms_give_the_same_in_training_as_in_use():
    lifted, patch = make_lifted(adapters_act=True), noise(1, 1, 4, 8, 8)
    used = lifted(patch).deepest
    assert deviation(lifted.train()(patch).deepest, used) == 0


def test_2d_weights_are_taken_over_strictly():
    network = randomise_norms(TinyVit(SLICES))
    lifted = make_lifted()
    rest = {k: v.clone() for k, v in lifted.state_dict().items() if "slice_encoder" not in k}
    lifted.load_slice_encoder(network.state_dict())
    own = lifted.slice_encoder.state_dict()
    for name, value in network.state_dict().items():
        if not name.startswith("neck."):
            assert torch.equal(own[name], value), name
    assert all(torch.equal(lifted.state_dict()[name], value) for name, value in rest.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layers.1.blocks.0.attn.qkv.bias"), "1 tensors .*qkv.bias"),
        (lambda s: s.pop("neck.0.weight"), "neck.0.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra"),
        (lambda s: s.update({"neck.1.bias": torch.zeros(9)}), "another shape .*neck.1.bias"),
    ],
)
def test_other_2d_weights_are_refused_and_change_nothing(change, message):
    state = TinyVit(SLICES).state_dict()
    change(state)
    lifted = make_lifted()
    before = {name: value.clone() for name, value in lifted.state_dict().items()}
    with pytest.raises(DamagedWeightsError, match=message) as caught:
        lifted.load_slice_encoder(state)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(lifted.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("shape", [(1, 4, 8, 7), (1, 6, 8, 8), (2, 4, 8, 8)])
def test_a_patch_that_does_not_fit_is_refused(shape):
    with pytest.raises(ConfigError, match=r"C must be 1 and every side must be a multiple of 4"):
        make_lifted()(torch.zeros(1, *shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slice_steps": (1, 1, 1)}, "4 numbers from 1"),
        ({"slice_steps": (0, 1, 1, 1)}, "4 numbers from 1"),
        ({"slice_steps": (3, 1, 1, 1)}, "join 3 slices"),
        ({"slice_steps": (2, 2, 2, 1)}, "join 8 slices"),
        ({"token_stride": 2, "slice_steps": (1, 1, 1, 1)}, "multiple of the 2D strides"),
        ({"in_plane_enlargement": 0}, "in_plane_enlargement 0"),
        ({"adapter_reduction": 0}, "adapter_reduction is 0"),
    ],
)
def test_a_contradictory_configuration_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)


def test_the_default_fits_litemedsam():
    config = LiftedTinyVitConfig()
    assert config.slice_encoder == TinyVitConfig()
    assert (config.token_stride, config.feature_width, config.num_channels) == (8, 96, 1)
    with torch.device("meta"):
        lifted = LiftedTinyVit3d(config)
    assert [adapter.down.out_features for adapter in lifted.adapters] == [32, 64, 80, 160]
    with torch.device("meta"):
        narrow = LiftedTinyVit3d(TINY)
    assert [adapter.down.out_features for adapter in narrow.adapters] == [16, 16, 16, 16]
