import itertools

import pytest
import torch

from clickvol.prompt_encoders.feature_sampling import (
    FeatureSampling,
    FeatureSamplingConfig,
    PointPrompts,
    sample_features,
)
from reference.compare import deviation, noise, randomise

PATCH = (8, 12, 16)
CELLS = (2, 3, 4)
OPTIONS = [
    {},
    {"signed": True},
    {"positions": "fourier"},
    {"signed": True, "positions": "fourier"},
]


def make_encoder(**options):
    torch.manual_seed(3)
    config = FeatureSamplingConfig(width=12, num_heads=3, mlp_width=16, num_queries=4, **options)
    return randomise(FeatureSampling(config))


def prompts(points, labels):
    return PointPrompts(torch.tensor(points, dtype=torch.float32), torch.tensor(labels))


@pytest.mark.parametrize("options", OPTIONS)
def test_padded_clicks_of_a_batch_are_as_if_not_there(options):
    encoder, fmap = make_encoder(**options), noise(2, 12, *CELLS)
    first = [[1.0, 2.0, 3.0]]
    second = [[4.0, 5.0, 6.0], [7.0, 1.0, 0.5], [2.0, 11.0, 15.0]]
    # The padding has places with features of their own.
    batch = prompts([[*first, [6.0, 6.0, 6.0], [1.0, 1.0, 1.0]], second], [[1, -1, -1], [1, 0, 1]])
    result = encoder(fmap, batch, PATCH)
    alone = [
        encoder(fmap[:1], prompts([first], [[1]]), PATCH),
        encoder(fmap[1:], prompts([second], [[1, 0, 1]]), PATCH),
    ]
    assert deviation(result, torch.cat(alone)) < 1e-5


@pytest.mark.parametrize("options", OPTIONS)
def test_the_order_of_clicks_does_not_matter(options):
    encoder, fmap = make_encoder(**options), noise(1, 12, *CELLS)
    points, labels = [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0], [2.0, 5.0, 15.0]], [1, 0, 1]
    result = encoder(fmap, prompts([points], [labels]), PATCH)
    for order in itertools.permutations(range(3)):
        turned = prompts([[points[i] for i in order]], [[labels[i] for i in order]])
        assert deviation(encoder(fmap, turned, PATCH), result) < 1e-5


def test_as_published_the_sign_changes_nothing():
    encoder, fmap = make_encoder(), noise(1, 12, *CELLS)
    points = [[[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]]
    inside = encoder(fmap, prompts(points, [[1, 1]]), PATCH)
    assert torch.equal(encoder(fmap, prompts(points, [[0, 1]]), PATCH), inside)
    assert encoder.sign_embed is None


def test_signed_the_sign_of_each_click_matters():
    encoder, fmap = make_encoder(signed=True), noise(1, 12, *CELLS)
    points = [[[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]]
    results = [encoder(fmap, prompts(points, [s]), PATCH) for s in ([1, 1], [0, 1], [1, 0], [0, 0])]
    for one, other in itertools.combinations(results, 2):
        assert deviation(one, other) > 1e-3


def test_a_click_matters():
    encoder, fmap = make_encoder(), noise(1, 12, *CELLS)
    here = encoder(fmap, prompts([[[1.0, 2.0, 3.0]]], [[1]]), PATCH)
    there = encoder(fmap, prompts([[[6.0, 9.0, 13.0]]], [[1]]), PATCH)
    assert deviation(here, there) > 1e-3


def test_as_published_only_the_features_under_a_click_matter():
    encoder, fmap = make_encoder(), torch.ones(1, 12, *CELLS)
    here = encoder(fmap, prompts([[[3.0, 4.0, 5.0]]], [[1]]), PATCH)
    there = encoder(fmap, prompts([[[4.0, 7.0, 10.0]]], [[1]]), PATCH)
    assert deviation(here, there) < 1e-6


def test_with_positions_the_place_matters_by_itself():
    encoder, fmap = make_encoder(positions="fourier"), torch.ones(1, 12, *CELLS)
    here = encoder(fmap, prompts([[[3.0, 4.0, 5.0]]], [[1]]), PATCH)
    there = encoder(fmap, prompts([[[4.0, 7.0, 10.0]]], [[1]]), PATCH)
    assert deviation(here, there) > 1e-3


def sampled(fmap, point, patch=PATCH):
    place = (torch.tensor([[point]], dtype=torch.float32) + 0.5) / torch.tensor(patch)
    return sample_features(fmap, place)[0, 0]


def test_a_single_cell_is_found_at_its_place_in_d_h_w_only():
    fmap = torch.zeros(1, 2, 4, 4, 4)
    fmap[0, :, 0, 1, 3] = torch.tensor([5.0, 7.0])
    # Cells of 4 voxels: their centres are at 1.5, 5.5, 9.5 and 13.5.
    centre = [1.5, 5.5, 13.5]
    assert sampled(fmap, centre, (16, 16, 16)).tolist() == [5.0, 7.0]
    for turned in set(itertools.permutations(centre)) - {tuple(centre)}:
        assert sampled(fmap, list(turned), (16, 16, 16)).tolist() == [0.0, 0.0]


def test_sampling_is_trilinear_between_cell_centres():
    fmap = torch.arange(24.0).view(1, 1, *CELLS)
    # (d, h, w) cell 0.25, 1.5, 2.75: the map is linear, 12 d + 4 h + w.
    point = [4 * (n + 0.5) - 0.5 for n in (0.25, 1.5, 2.75)]
    assert sampled(fmap, point).item() == pytest.approx(12 * 0.25 + 4 * 1.5 + 2.75, abs=1e-5)


@pytest.mark.parametrize("point", [[-30, 4, 4], [4, 40, 4], [4, 4, 99]])
def test_far_outside_the_patch_are_zeros(point):
    assert sampled(torch.ones(1, 3, *CELLS), point).tolist() == [0.0, 0.0, 0.0]


def test_a_click_on_the_border_reads_half_of_the_outside():
    # -0.5 is the face of the patch, half a cell (2 voxels) before the first centre.
    assert sampled(torch.ones(1, 1, *CELLS), [-0.5, 5.5, 5.5]).item() == pytest.approx(0.5)


def plain(encoder, fmap, points):
    """The published layers, one sample at a time, by hand."""
    image = fmap[0].flatten(1).T
    tokens = torch.stack([sampled(fmap, point) for point in points])
    norm = torch.nn.functional.layer_norm

    def normed(layer, number, x):
        module = getattr(layer, f"norm{number}")
        return norm(x, x.shape[-1:], module.weight, module.bias, 1e-5)

    def attend(attention, q, k, v):
        q, k, v = attention.q_proj(q), attention.k_proj(k), attention.v_proj(v)
        width = q.shape[-1] // attention.num_heads
        heads = [
            torch.softmax(a @ b.T / width**0.5, -1) @ c
            for a, b, c in zip(q.split(width, 1), k.split(width, 1), v.split(width, 1), strict=True)
        ]
        return attention.out_proj(torch.cat(heads, 1))

    for layer in encoder.layers:
        both = torch.cat([layer.global_query[0], tokens])
        both = normed(layer, 2, both + normed(layer, 1, attend(layer.self_attn, both, both, both)))
        queries, tokens = both[: -len(points)], both[-len(points) :]
        hidden = (queries @ layer.mlp.lin1.weight.T + layer.mlp.lin1.bias).clamp(min=0)
        queries = normed(layer, 3, queries + hidden @ layer.mlp.lin2.weight.T + layer.mlp.lin2.bias)
        result = attend(layer.image_to_query, image, queries, queries)
        image = normed(layer, 4, image + result)
    return image.T.reshape(fmap.shape)


def test_the_layers_are_the_published_ones():
    encoder, fmap = make_encoder(), noise(1, 12, *CELLS)
    points = [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]
    result = encoder(fmap, prompts([points], [[1, 1]]), PATCH)
    assert deviation(result, plain(encoder, fmap, points)) < 1e-5


def test_the_given_coordinates_are_left_alone():
    encoder, fmap = make_encoder(signed=True, positions="fourier"), noise(1, 12, *CELLS)
    given = prompts([[[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]], [[1, -1]])
    encoder(fmap, given, PATCH)
    assert given.points_dhw.tolist() == [[[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]]
    assert given.labels.tolist() == [[1, -1]]


def test_no_dead_weights_are_stored():
    with torch.device("meta"):
        encoder = FeatureSampling(FeatureSamplingConfig())
    # 3,164,160 published, less 131,712 of unused token-to-image attention in each of two layers.
    assert sum(p.numel() for p in encoder.parameters()) == 2_900_736
    assert not list(encoder.buffers())
