from clickvol.datasets.splits import make_split
from clickvol.reproduction.preparation import draw_split

CASES = [f"colon_{n:03d}" for n in range(126)]


def test_a_drawn_split_has_the_published_numbers():
    split = draw_split(CASES, 0, 11, 26)
    assert [len(part) for part in (split.train, split.val, split.test)] == [89, 11, 26]
    assert sorted((*split.train, *split.val, *split.test)) == CASES


def test_it_depends_on_cases_and_seed_alone():
    assert draw_split(CASES[::-1], 0, 11, 26) == draw_split(CASES, 0, 11, 26)
    assert draw_split(CASES, 1, 11, 26) != draw_split(CASES, 0, 11, 26)


def test_it_is_in_the_order_of_the_splits_by_shares():
    """.1 of 126 are 13 there: the 11 are among them."""
    by_share = make_split({case: case for case in CASES}, 0)
    assert set(draw_split(CASES, 0, 11, 26).val) < set(by_share.val)
