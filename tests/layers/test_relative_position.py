import pytest
import torch

from clickvol.layers.relative_position import (
    offset_rows,
    place_one_hot,
    query_columns,
    resample_table,
)
from reference.compare import deviation, noise
from reference.plain_attention import plain_table


@pytest.mark.parametrize(("rows", "window"), [(27, 8), (127, 8), (7, 4), (15, 8), (5, 7), (27, 1)])
def test_the_whole_table_is_squeezed_linearly(rows, window):
    table = noise(rows, 6)
    # torch reckons the places in float32, whose last digit is 1e-5 at row 120.
    assert deviation(resample_table(table, window), plain_table(table, window)) < 1e-4


def test_a_table_of_the_right_length_is_taken_as_it_is():
    table = noise(7, 6)
    assert torch.equal(resample_table(table, 4), table)


def test_resampling_by_hand():
    # Five rows to three: the places (i + 0.5) * 5 / 3 - 0.5 are 1/3, 2 and 11/3.
    table = torch.tensor([0.0, 30.0, 60.0, 90.0, 120.0])[:, None]
    assert resample_table(table, 2).flatten().tolist() == pytest.approx([10.0, 60.0, 110.0])


def test_the_offset_is_query_minus_key():
    rows = offset_rows(torch.arange(-2.0, 3.0)[:, None], 3)[..., 0]
    assert rows.tolist() == [[0, -1, -2], [1, 0, -1], [2, 1, 0]]


def test_one_hot_places_are_d_then_h_then_w():
    codes = place_one_hot((2, 1, 3), like=torch.zeros(1))
    assert codes.tolist()[0] == [1, 0, 1, 1, 0, 0]
    assert codes.tolist()[1] == [1, 0, 1, 0, 1, 0]
    assert codes.tolist()[5] == [0, 1, 1, 0, 0, 1]


def test_columns_times_one_hot_is_the_sum_of_three_terms():
    window = (2, 3, 4)
    query = noise(2, 1, *window, 5)
    tables = [noise(2 * n - 1, 5, seed=n) for n in window]
    rows = tuple(offset_rows(t, n) for t, n in zip(tables, window, strict=True))
    columns = query_columns(query, rows).view(2, 1, 24, -1)
    bias = columns @ place_one_hot(window, like=query).T
    # Query (1, 0, 3), key (0, 2, 1): offsets 1, -2 and 2.
    q = query[1, 0, 1, 0, 3]
    expected = q @ tables[0][1 + 1] + q @ tables[1][-2 + 2] + q @ tables[2][2 + 3]
    assert bias[1, 0, 1 * 12 + 0 * 4 + 3, 0 * 12 + 2 * 4 + 1].item() == pytest.approx(expected.item(), abs=1e-5)


def test_one_hot_places_of_two_axes_are_row_then_column():
    codes = place_one_hot((2, 3), like=torch.zeros(1))
    assert codes.tolist() == [
        [1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 0, 1],
    ]
