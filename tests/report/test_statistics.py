import numpy as np
import pytest
from scipy import stats

from clickvol.report.statistics import (
    bootstrap_interval,
    holm,
    paired_tests,
)


def test_an_interval_of_two_patients_is_their_two_values():
    # Both are drawn twice with a chance of a quarter each, so the percentiles are the extremes.
    assert bootstrap_interval([0.2, 0.8], ["a", "b"]) == (0.2, 0.8)


def test_all_values_of_a_drawn_patient_count():
    # Patient a alone: mean 0.1; b alone: 0.9; both: (3 * 0.1 + 0.9) / 4, never below or above.
    low, high = bootstrap_interval([0.1, 0.1, 0.1, 0.9], ["a", "a", "a", "b"])
    assert (low, high) == pytest.approx((0.1, 0.9))


def test_scans_of_one_patient_do_not_narrow_the_interval():
    rng = np.random.default_rng(1)
    patients = rng.normal(size=12)
    names = [f"p{number}" for number in range(12)]
    once = bootstrap_interval(patients, names)
    five_times = bootstrap_interval(np.repeat(patients, 5), np.repeat(names, 5))
    assert five_times == pytest.approx(once)


def test_the_interval_has_the_width_that_theory_gives_it():
    values = np.random.default_rng(2).normal(size=400)
    low, high = bootstrap_interval(values, [str(n) for n in range(400)], resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    assert low < values.mean() < high


def test_few_patients_are_counted_exactly_and_no_seed_matters():
    # Of 27 draws one is all of the lowest and one all of the highest; 2.5 % are less than one of 27.
    assert bootstrap_interval([0, 1, 9], ["a", "b", "c"]) == (0.0, 9.0)
    values, names = np.random.default_rng(3).normal(size=6), list("abcdef")
    low, high = bootstrap_interval(values, names, seed=1)
    assert (low, high) == bootstrap_interval(values, names, seed=2)
    drawn = values[np.indices((6,) * 6).reshape(6, -1)].mean(axis=0)
    assert (drawn <= low + 1e-12).mean() >= 0.025 > (drawn < low - 1e-12).mean()
    assert (drawn <= high + 1e-12).mean() >= 0.975 > (drawn < high - 1e-12).mean()


def test_a_seed_gives_the_same_interval_and_another_seed_another():
    values, names = np.random.default_rng(3).normal(size=9), list("abcdefghi")
    assert bootstrap_interval(values, names, seed=4) == bootstrap_interval(values, names, seed=4)
    assert bootstrap_interval(values, names, seed=4) != bootstrap_interval(values, names, seed=5)


def test_one_patient_has_no_interval():
    assert bootstrap_interval([0.1, 0.9], ["a", "a"]) is None
    assert bootstrap_interval([], []) is None


def test_tests_are_those_of_scipy():
    rng = np.random.default_rng(6)
    ours, theirs = rng.normal(0.3, 1.0, 11), rng.normal(0.0, 1.0, 11)
    found = paired_tests(ours - theirs)
    assert found.pairs == 11
    assert found.t_p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)


def test_three_patients_by_hand():
    # Mean 2, deviation 1: t = 2 / (1 / sqrt 3) with 2 degrees of freedom, p = 1 - t / sqrt(t^2 + 2).
    found = paired_tests([1.0, 2.0, 3.0])
    assert found.t_p == pytest.approx(1 - np.sqrt(12) / np.sqrt(14))
    # All of one sign is one of eight equally likely patterns, and so is the opposite.
    assert found.wilcoxon_p == pytest.approx(2 / 8)


@pytest.mark.parametrize("differences", [[], [0.3]])
def test_fewer_than_two_pairs_are_not_tested(differences):
    found = paired_tests(differences)
    assert (found.pairs, found.t_p, found.wilcoxon_p) == (len(differences), None, None)


def test_no_difference_at_all_has_p_one():
    found = paired_tests([0.0, 1e-16, 0.0])
    assert (found.t_p, found.wilcoxon_p) == (1.0, 1.0)


def test_a_constant_difference_has_no_t_test():
    found = paired_tests([0.1, 0.1 + 1e-16, 0.1])
    assert found.t_p is None
    assert found.wilcoxon_p == pytest.approx(2 / 8)


def test_zeros_are_left_out_of_the_signed_ranks():
    zeros = paired_tests([0.0, 1.0, 2.0, 0.0, 3.0]).wilcoxon_p
    assert zeros == pytest.approx(2 / 8)
    assert 0 < paired_tests([0.0, 0.4]).wilcoxon_p <= 1


def test_holm_multiplies_the_smallest_most():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.001]) == [0.001]
    assert holm([]) == []


def test_what_was_not_tested_does_not_count_in_a_family():
    assert holm([None, 0.02, None, 0.01]) == [None, 0.02, None, 0.02]
    assert holm([None]) == [None]
