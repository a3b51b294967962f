import pytest
import torch

from clickvol.layers.windows import padded_shape, region_codes, to_windows, window_index
from reference.compare import noise

LIKE = torch.zeros(1)


def test_windows_come_in_d_h_w_order():
    tokens = torch.arange(2 * 2 * 4).view(1, 2, 2, 4, 1)
    cut = to_windows(tokens, (1, 2, 2), (0, 0, 0))
    assert cut.shape == (4, 1, 2, 2, 1)
    assert cut.flatten(1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_a_shift_rolls_towards_the_start():
    tokens = torch.arange(4).view(1, 1, 1, 4, 1)
    cut = to_windows(tokens, (1, 1, 2), (0, 0, 1))
    assert cut.flatten(1).tolist() == [[1, 2], [3, 0]]


def test_padding_is_zeros_at_the_far_end():
    tokens = torch.arange(1, 4).view(1, 1, 1, 3, 1)
    assert to_windows(tokens, (1, 1, 2), (0, 0, 0)).flatten(1).tolist() == [[1, 2], [3, 0]]


def test_the_index_counts_tokens_of_the_whole_batch_and_marks_padding():
    index = window_index((1, 1, 3), (1, 1, 2), (0, 0, 1), batch=2, device=LIKE.device)
    # Rolled by one, the row 0 1 2 and one place of padding becomes 1 2 | - 0.
    assert index.tolist() == [[1, 2], [-1, 0], [4, 5], [-1, 3]]


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 0), (2, 2, 2)])
@pytest.mark.parametrize("shape", [(4, 8, 12), (3, 6, 9), (5, 4, 7)])
def test_the_index_finds_what_cutting_finds(shape, shift):
    tokens = noise(2, *shape, 3)
    index = window_index(shape, (4, 4, 4), shift, batch=2, device=tokens.device)
    result = tokens.reshape(-1, 3)[index.clamp(min=0)] * (index >= 0)[..., None]
    assert torch.equal(result, to_windows(tokens, (4, 4, 4), shift).flatten(1, 3))
    # Every token is in one window, once.
    assert sorted(index[index >= 0].tolist()) == list(range(2 * shape[0] * shape[1] * shape[2]))


def test_padded_shape_is_the_next_multiple():
    assert padded_shape((3, 8, 9), (4, 4, 3)) == (4, 8, 9)


def test_no_codes_where_everyone_may_see_everyone():
    assert region_codes((4, 8, 4), (4, 4, 4), (0, 0, 0), like=LIKE) is None


def codes_of(shape, window, shift):
    return region_codes(shape, window, shift, like=LIKE).argmax(-1).tolist()


def test_only_the_last_rolled_window_is_divided():
    # Rolled by one, the row 0 1 2 3 becomes 1 2 | 3 0: the pair 3 0 are no neighbours.
    result = codes_of((1, 1, 4), (1, 1, 2), (0, 0, 1))
    assert result[0][0] == result[0][1]
    assert result[1][0] != result[1][1]


def test_padded_places_are_apart_from_real_ones():
    result = codes_of((1, 1, 3), (1, 1, 2), (0, 0, 0))
    assert result[0][0] == result[0][1]
    assert result[1][0] != result[1][1]


def test_each_axis_has_a_region_of_its_own():
    codes = codes_of((2, 2, 2), (2, 2, 2), (1, 1, 1))
    assert len(codes) == 1
    assert len(set(codes[0])) == 8


def test_codes_are_one_hot_in_the_type_asked_for():
    codes = region_codes((4, 4, 4), (2, 2, 2), (1, 1, 1), like=LIKE.bfloat16())
    assert codes.shape == (8, 8, 8)
    assert codes.dtype == torch.bfloat16
    assert torch.equal(codes.sum(-1), torch.ones(8, 8).bfloat16())


def test_padding_has_codes_of_its_own():
    assert region_codes((4, 4, 3), (2, 2, 2), (0, 0, 0), like=LIKE).shape == (8, 8, 16)
