import torch

from clickvol.layers.two_way import TwoWayLayer, TwoWayTransformer
from reference.compare import deviation, noise, randomise


def make_transformer(depth=2):
    torch.manual_seed(0)
    return randomise(TwoWayTransformer(width=16, depth=depth, num_heads=4, mlp_width=24))


def silent(layer):
    """Let every attention and the MLP answer zero."""
    with torch.no_grad():
        for part in (
            layer.self_attn.out_proj,
            layer.cross_attn_token_to_image.out_proj,
            layer.cross_attn_image_to_token.out_proj,
            layer.mlp.lin2,
        ):
            part.weight.zero_()
            part.bias.zero_()
    return layer


def test_the_first_layer_replaces_its_tokens_and_others_add_to_them():
    tokens, image = noise(1, 3, 16), noise(1, 5, 16, seed=1)
    first = silent(TwoWayLayer(16, 4, 24, first=True))
    other = silent(TwoWayLayer(16, 4, 24, first=False))
    norm = torch.nn.LayerNorm(16)
    assert deviation(first(tokens, tokens, image, image)[0], torch.zeros(1, 3, 16)) < 1e-6
    assert deviation(other(tokens, tokens, image, image)[0], norm(tokens)) < 1e-2
    for layer in (first, other):
        assert deviation(layer(tokens, tokens, image, image)[1], norm(image)) < 1e-6


def test_positions_act_on_queries_and_keys_only():
    """Where a key stands out by its place alone, the value read is that of the place without the code."""
    layer = silent(TwoWayLayer(16, 1, 24, first=True))
    attention = layer.cross_attn_token_to_image
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight.copy_(torch.eye(8, 16))
            projection.bias.zero_()
        attention.out_proj.weight.copy_(torch.eye(16, 8))
    image, places = torch.zeros(1, 4, 16), torch.zeros(1, 4, 16)
    image[0, 2, 1] = 1.0
    places[0, 2, 0] = 100.0
    positions = torch.zeros(1, 1, 16)
    positions[0, 0, 0] = 100.0
    result, _ = layer(torch.zeros(1, 1, 16), positions, image, places)
    unit = torch.zeros(1, 1, 16)
    unit[0, 0, 1] = 1.0
    # Tokens are zero after the first attention, so what is left is the value read, normalised twice.
    norm = torch.nn.LayerNorm(16)
    assert deviation(result, norm(norm(unit))) < 1e-4


def test_the_first_self_attention_sees_no_positions_and_the_second_does():
    tokens, image = noise(2, 3, 16), noise(2, 5, 16, seed=1)
    places = noise(1, 5, 16, seed=2)
    for first in (True, False):
        layer = randomise(TwoWayLayer(16, 4, 24, first=first))
        with torch.no_grad():  # leaves the self-attention as the only user of the positions
            for attention in (layer.cross_attn_token_to_image, layer.cross_attn_image_to_token):
                attention.out_proj.weight.zero_()
        here, _ = layer(tokens, tokens, image, places)
        there, _ = layer(tokens, 3 * tokens, image, places)
        assert (deviation(here, there) == 0) == first


def test_the_inner_width_of_cross_attention_is_half():
    shapes = {name: tuple(p.shape) for name, p in make_transformer().named_parameters()}
    assert shapes["layers.1.self_attn.q_proj.weight"] == (16, 16)
    assert shapes["layers.1.cross_attn_token_to_image.k_proj.weight"] == (8, 16)
    assert shapes["layers.1.cross_attn_image_to_token.out_proj.weight"] == (16, 8)
    assert shapes["final_attn_token_to_image.v_proj.weight"] == (8, 16)


def test_samples_of_a_batch_are_apart_and_the_order_of_cells_does_not_matter():
    transformer = make_transformer()
    tokens, image = noise(2, 3, 16), noise(2, 7, 16, seed=1)
    places = noise(1, 7, 16, seed=2)
    new_tokens, new_image = transformer(tokens, image, places)
    alone, _ = transformer(tokens[1:], image[1:], places)
    assert deviation(new_tokens[1:], alone) < 1e-5
    turned_tokens, turned_image = transformer(tokens, image.flip(1), places.flip(1))
    assert deviation(turned_tokens, new_tokens) < 1e-5
    assert deviation(turned_image.flip(1), new_image) < 1e-5


def test_the_last_look_is_normalised():
    tokens, _ = make_transformer(depth=0)(noise(1, 3, 16), noise(1, 5, 16), noise(1, 5, 16))
    transformer = make_transformer(depth=0)
    with torch.no_grad():
        transformer.final_attn_token_to_image.out_proj.weight.zero_()
        transformer.final_attn_token_to_image.out_proj.bias.zero_()
    start = noise(1, 3, 16)
    result, image = transformer(start, noise(1, 5, 16), noise(1, 5, 16))
    assert deviation(result, transformer.norm_final_attn(start)) < 1e-6
    assert torch.equal(image, noise(1, 5, 16))
    assert deviation(tokens, result) > 1e-3
