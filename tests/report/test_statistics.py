import numpy as np
import pytest
from scipy import stats

from clickvol.report.statistics import (
    bootstrap_interval,
    holm,
    paired_tests,
    random_effects_mean,
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
    result = paired_tests(ours - theirs)
    assert result.pairs == 11
    assert result.t_p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert result.wilcoxon_p == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)


def test_three_patients_by_hand():
    # Mean 2, deviation 1: t = 2 / (1 / sqrt 3) with 2 degrees of freedom, p = 1 - t / sqrt(t^2 + 2).
    result = paired_tests([1.0, 2.0, 3.0])
    assert result.t_p == pytest.approx(1 - np.sqrt(12) / np.sqrt(14))
    # All of one sign is one of eight equally likely patterns, and so is the opposite.
    assert result.wilcoxon_p == pytest.approx(2 / 8)


@pytest.mark.parametrize("differences", [[], [0.3]])
def test_fewer_than_two_pairs_are_not_tested(differences):
    result = paired_tests(differences)
    assert (result.pairs, result.t_p, result.wilcoxon_p) == (len(differences), None, None)


def test_no_difference_at_all_has_p_one():
    result = paired_tests([0.0, 1e-16, 0.0])
    assert (result.t_p, result.wilcoxon_p) == (1.0, 1.0)


def test_a_constant_difference_has_no_t_test():
    result = paired_tests([0.1, 0.1 + 1e-16, 0.1])
    assert result.t_p is None
    assert result.wilcoxon_p == pytest.approx(2 / 8)


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


def test_a_mean_with_patients_at_random_is_the_paired_t_test_over_them():
    """Two trainings of the same patients without an effect of their own: exact, by the analysis of variance."""
    rng = np.random.default_rng(4)
    patients = rng.normal(0.05, 0.1, 20)
    rest = rng.normal(0, 0.02, (20, 2))
    rest -= rest.mean(axis=0)  # no effect of a training
    values = (patients[:, None] + rest).ravel()
    names = np.repeat(np.arange(20), 2)
    model = random_effects_mean(values, names, np.tile([0, 1], 20))
    means = values.reshape(20, 2).mean(axis=1)
    classic = stats.ttest_1samp(means, 0.0)
    assert model.mean == pytest.approx(means.mean(), rel=1e-6)
    assert model.error == pytest.approx(means.std(ddof=1) / 20**0.5, rel=1e-3)
    assert model.degrees == pytest.approx(19, rel=0.02)
    assert model.p == pytest.approx(classic.pvalue, rel=0.02)
    np.testing.assert_allclose(model.interval, classic.confidence_interval(0.95), rtol=0.01)


def test_a_training_that_moves_all_its_patients_makes_the_mean_less_sure():
    rng = np.random.default_rng(0)
    trainings = np.repeat([0.2, 0.0, 0.15, -0.02], 8)
    values = trainings + rng.normal(0, 0.02, 32)
    patients = np.tile(np.arange(8), 4)
    by_training = np.repeat(np.arange(4), 8)
    alone = random_effects_mean(values, patients)
    model = random_effects_mean(values, patients, by_training)
    assert model.mean == pytest.approx(values.mean(), rel=1e-6)
    # Balanced: the error of the mean is that of four means of trainings.
    means = values.reshape(4, 8).mean(axis=1)
    assert model.error == pytest.approx(means.std(ddof=1) / 2, rel=0.02)
    assert model.degrees == pytest.approx(3, abs=0.3)
    assert model.error > 2 * alone.error


def test_a_random_effects_mean_needs_values_that_differ():
    assert random_effects_mean([0.1, 0.2], [0, 1]) is None
    assert random_effects_mean([0.1, 0.1, 0.1], [0, 1, 2]) is None
    plain = random_effects_mean([0.1, 0.2, 0.4], [0, 1, 2])
    assert plain.p == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.4], 0.0).pvalue, rel=1e-3)


def test_the_p_value_is_as_often_below_its_level_as_it_says():
    """Patients in five folds, two trainings per fold, as in the study of the claims; nothing is true."""
    rng = np.random.default_rng(1)
    fold = np.repeat(np.arange(20) % 5, 2)
    patient, training = np.repeat(np.arange(20), 2), 2 * fold + np.tile([0, 1], 20)
    below = 0
    for _ in range(150):
        values = rng.normal(0, 0.1, 20)[patient] + rng.normal(0, 0.05, 10)[training] + rng.normal(0, 0.05, 40)
        below += random_effects_mean(values, patient, training).p < 0.05
    assert 1 <= below <= 16


@pytest.mark.parametrize("effects", [[0.1, 0.3, 0.2, 0.5], [0.0, 0.0, 0.0, 0.4], [1e-9, 2e-9, 5e-9, 1e-9]])
def test_trainings_that_agree_to_the_last_digit_leave_the_t_test_over_patients(effects):
    values = np.repeat(effects, 2)
    model = random_effects_mean(values, np.repeat(np.arange(4), 2), np.tile([0, 1], 4))
    if np.var(effects) < 1e-12:
        assert model is None
        return
    classic = stats.ttest_1samp(effects, 0.0)
    assert model.mean == pytest.approx(np.mean(effects), rel=1e-6)
    assert model.p == pytest.approx(classic.pvalue, rel=0.03)


def test_patients_that_differ_in_nothing_leave_the_trainings():
    effects = [0.1, 0.3, 0.2, 0.5]
    model = random_effects_mean(np.repeat(effects, 5), np.tile(np.arange(5), 4), np.repeat(np.arange(4), 5))
    assert model.p == pytest.approx(stats.ttest_1samp(effects, 0.0).pvalue, rel=0.03)


def test_small_numbers_of_any_size_have_an_estimate():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(3, 9))
        values = np.round(rng.normal(0, 0.2, count), int(rng.integers(1, 4)))
        patients, trainings = rng.integers(0, 3, count), rng.integers(0, 2, count)
        model = random_effects_mean(values, patients, trainings)
        assert model is None or (0 <= model.p <= 1 and model.error > 0 and model.degrees >= 1)
