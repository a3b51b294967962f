import hashlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError
from clickvol.image_encoders.tiny_vit import TinyVit, TinyVitConfig
from reference.compare import deviation, noise
from reference.plain_tiny_vit import plain_stages, randomise_norms

SMALL = TinyVitConfig(
    widths=(4, 6, 8, 12),
    depths=(1, 2, 1, 1),
    num_heads=(1, 2, 2, 3),
    windows=(3, 3, 4, 3),
    feature_width=10,
)


def make_network(config=SMALL):
    torch.manual_seed(0)
    return randomise_norms(TinyVit(config))


def test_names_and_shapes_are_those_of_the_published_weights():
    state = TinyVit(TinyVitConfig()).state_dict()
    assert sum(value.numel() for value in state.values()) == 5_736_623
    assert {name: tuple(state[name].shape) for name in SAMPLE_OF_SHAPES} == SAMPLE_OF_SHAPES
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    assert len(lines) == 298
    # Made from the 298 `image_encoder.*` tensors of lite_medsam.pth (sha256 79d8c9dc...).
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == (
        "78a56117ea295a1b9bedfc56030e1e58c885e164a58d6b9bdac530389085b456"
    )


SAMPLE_OF_SHAPES = {
    "patch_embed.seq.0.c.weight": (32, 3, 1, 1),
    "patch_embed.seq.2.bn.num_batches_tracked": (),
    "layers.0.blocks.1.conv2.c.weight": (256, 1, 3, 3),
    "layers.0.downsample.conv1.bn.running_mean": (128,),
    "layers.1.blocks.0.attn.attention_biases": (4, 49),
    "layers.2.blocks.5.attn.attention_biases": (5, 196),
    "layers.2.downsample.conv3.c.weight": (320, 320, 1, 1),
    "layers.3.blocks.1.mlp.fc1.weight": (1280, 320),
    "layers.3.blocks.1.local_conv.bn.running_var": (320,),
    "neck.2.weight": (256, 256, 3, 3),
    "neck.3.bias": (256,),
}


@pytest.mark.parametrize("shape_hw", [(16, 16), (12, 20), (7, 18)])
def test_stages_are_the_plain_ones(shape_hw):
    network = make_network()
    image = noise(2, 3, *shape_hw)
    result = network(image)
    expected = plain_stages(network, image)
    assert len(result.taps) == len(expected) == 4
    for tap, plain, stride, width in zip(result.taps, expected, SMALL.stage_strides, SMALL.widths, strict=True):
        assert tap.shape == (2, width, *[-(-n // stride) for n in shape_hw])
        assert deviation(tap, plain) < 1e-4
    # The neck: 1x1, LayerNorm over channels, 3x3, LayerNorm over channels.
    neck = network.neck
    x = F.linear(expected[-1].movedim(1, -1), neck[0].weight[:, :, 0, 0])
    x = F.layer_norm(x, (10,), neck[1].weight, neck[1].bias, 1e-6)
    x = F.conv2d(x.movedim(-1, 1), neck[2].weight, padding=1).movedim(1, -1)
    x = F.layer_norm(x, (10,), neck[3].weight, neck[3].bias, 1e-6)
    assert deviation(result.embedding, x.movedim(-1, 1)) < 1e-4


@pytest.mark.parametrize("shape_hw", [(16, 16), (12, 20), (7, 18)])
def test_a_batch_is_its_images(shape_hw):
    network = make_network()
    image = noise(2, 3, *shape_hw)
    together = network(image).embedding
    for index in (0, 1):
        alone = network(image[index : index + 1]).embedding
        assert deviation(together[index : index + 1], alone) < 1e-5


def test_axes_are_told_apart():
    network, image = make_network(), noise(1, 3, 16, 16)
    assert deviation(network(image.mT).embedding.mT, network(image).embedding) > 1e-2


def test_strides_of_the_published_networks():
    assert TinyVitConfig().stage_strides == (1, 2, 4, 4)
    mobile = replace(SMALL, embedding_kernel=3, embedding_stride=2)
    assert mobile.stage_strides == (4, 8, 16, 16)
    result = make_network(mobile)(noise(1, 3, 32, 48))
    assert [tuple(tap.shape[2:]) for tap in result.taps] == [(8, 12), (4, 6), (2, 3), (2, 3)]
    assert result.embedding.shape == (1, 10, 2, 3)


def test_gradients_reach_every_parameter():
    network = make_network().train()
    network(noise(2, 3, 12, 12)).embedding.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    # Windows of 3 are whole here, so every offset is learned.
    assert network.layers[1].blocks[0].attn.attention_biases.grad.abs().min() > 0


def test_running_statistics_move_in_train_mode_alone():
    network = make_network()
    image = noise(2, 3, 12, 12)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        network(image)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        network.train()(image)
    name = "patch_embed.seq.0.bn.running_mean"
    assert not torch.equal(before[name], network.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (1, 2, 1)}, "one value per stage"),
        ({"merging_strides": (2, 2)}, "one fewer"),
        ({"num_heads": (1, 4, 2, 3)}, "width 6 is not a multiple of num_heads 4"),
        ({"widths": (5, 6, 8, 12)}, "first width is 5"),
        ({"embedding_kernel": 2}, "embedding_kernel is 2"),
    ],
)
def test_a_contradictory_configuration_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)
