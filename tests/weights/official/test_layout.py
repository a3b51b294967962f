"""The table of official names against the lists of the published checkpoints; axes and masks by hand."""

import gzip
import json

import numpy as np
import pytest
import torch

from clickvol.weights.official.layout import (
    OfficialTensor,
    misfits,
    official_layout,
    our_state,
    shift_mask,
    to_dhw,
    to_hwd,
    with_current_names,
)
from clickvol.weights.official.sizes import OfficialSizes, official_config
from reference import seeded_official
from reference.golden import GOLDEN

METHODS = ("promise3d", "sam3d_adapter")


def published(method):
    """Return part -> list of [key, shape], in the order of the published files."""
    content = gzip.decompress((GOLDEN / f"official_keys_{method}.json.gz").read_bytes())
    return json.loads(content)


def layout(method, *, automatic=False, **sizes):
    config = official_config(method, OfficialSizes(**sizes), automatic=automatic)
    return official_layout(method, config)


def rows(table):
    return [[entry.key, list(entry.shape)] for entry in table]


@pytest.mark.parametrize("method", METHODS)
def test_names_shapes_and_order_are_the_published_ones(method):
    expected = published(method)
    result = layout(method)
    assert len(expected["encoder_dict"]) == {"promise3d": 372, "sam3d_adapter": 300}[method]
    assert rows(result.encoder) == expected["encoder_dict"]
    assert rows(result.prompt) == expected["feature_dict"]
    assert rows(result.decoder) == expected["decoder_dict"]


@pytest.mark.parametrize("method", METHODS)
def test_the_seeded_checkpoints_are_of_the_published_layout(method):
    official = seeded_official.Official(method=method, tokens=32)
    expected = published(method)
    for part, shapes in (
        ("encoder_dict", seeded_official.encoder_shapes(official)),
        ("feature_dict", seeded_official.prompt_shapes(official)),
        ("decoder_dict", seeded_official.decoder_shapes(official)),
    ):
        assert [[key, list(shape)] for key, shape in shapes.items()] == expected[part]


def test_what_has_no_counterpart_is_masks_matrix_and_token_to_image_attention():
    result = layout("promise3d")
    without = [e.key for e in (*result.encoder, *result.prompt, *result.decoder) if e.ours is None]
    assert [key for key in without if "attn_mask" in key] == [
        f"blocks.{index}.attn_mask" for index in range(0, 12, 2)
    ]
    assert len(without) == 6 + 1 + 2 * 8


def test_the_automatic_variant_has_no_prompt_encoder():
    assert layout("sam3d_adapter", automatic=True).prompt == ()


def test_a_kernel_is_turned_from_hwd_to_dhw_and_back():
    kernel = torch.zeros(1, 1, 3, 3, 3)
    kernel[0, 0, 0, 1, 2] = 1.0  # h 0, w 1, d 2
    turned = to_dhw(kernel)
    assert turned.nonzero().tolist() == [[0, 0, 2, 0, 1]]
    assert torch.equal(to_hwd(turned), kernel)


def test_what_is_no_3d_kernel_is_not_turned():
    for shape in ((2, 3, 4, 5), (1, 10, 4), (7,), ()):
        assert to_dhw(torch.zeros(shape)).shape == shape


def test_the_slice_embedding_lies_along_d():
    (entry,) = [e for e in layout("promise3d").encoder if e.key == "slice_embed.weight"]
    assert entry.shape == (768, 1, 1, 1, 16)
    assert to_dhw(torch.empty(entry.shape, device="meta")).shape == (768, 1, 16, 1, 1)


def test_our_state_is_views_of_the_file():
    table = (OfficialTensor("a", "x.a", (1,)), OfficialTensor("mask", None, (1,)))
    tensor = torch.ones(1)
    empty = layout("sam3d_adapter", automatic=True)
    parts = ({"a": tensor, "mask": tensor}, {}, {})
    result = our_state(type(empty)(table, (), ()), parts)
    assert list(result) == ["x.a"]
    assert result["x.a"].data_ptr() == tensor.data_ptr()


def test_older_names_of_the_last_stage_of_promise3d():
    older = {"cls_hao.0.weight": 1, "cls_hao.3.weight": 2, "cls_hao.1.weight": 3, "other": 4}
    assert with_current_names("promise3d", older) == {
        "head.0.weight": 1,
        "head.3.weight": 2,
        "cls_hao.1.weight": 3,
        "other": 4,
    }
    assert with_current_names("sam3d_adapter", older) == older


def test_an_older_name_beside_the_new_one_stays_and_is_unknown():
    both = {"head.0.weight": 1, "cls_hao.0.weight": 2}
    assert with_current_names("promise3d", both) == both


def test_misfits_lists_everything():
    table = (
        OfficialTensor("a", "a", (2,)),
        OfficialTensor("b", "b", (2, 3)),
        OfficialTensor("c", None, (1,)),
        OfficialTensor("d", "d", (1,)),
        OfficialTensor("e", "e", (1,)),
    )
    result = {
        "b": torch.zeros(3, 2),
        "c": [1.0],
        "d": torch.zeros(1, dtype=torch.int64),
        "e": torch.zeros(1),
        "z": 0,
    }
    assert misfits("part", result, table) == [
        "part.a is missing",
        "part.b has shape (3, 2), expected (2, 3)",
        "part.c is no tensor of floating-point numbers",
        "part.d is no tensor of floating-point numbers",
        "part.z is unknown",
    ]


def test_the_shift_mask_along_one_axis():
    # Four tokens, windows of 2, shift 1: after the rolling, tokens 2 and 3 of an axis lie in the last
    # window, and 3 came round from the other end.
    mask = shift_mask(4, 2)
    assert mask.shape == (8, 8, 8)
    assert (mask[0] == 0).all()
    # The last window along all axes: two tokens see each other where all three codes agree.
    np.testing.assert_array_equal(mask[7], np.where(np.eye(8), 0.0, -100.0))
    # The last window along d only, the fastest axis: d decides.
    np.testing.assert_array_equal(mask[1][0], [0, -100] * 4)


@pytest.mark.parametrize("official", [seeded_official.PROMISE, seeded_official.TINY])
def test_the_shift_mask_is_the_published_one(official):
    result = shift_mask(official.tokens, official.window).numpy()
    np.testing.assert_array_equal(result, seeded_official.shift_mask(official))
