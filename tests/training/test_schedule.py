import math

import pytest

from clickvol.training.config import OptimiserSection
from clickvol.training.schedule import Schedule, learning_rate


def rate(step, config, steps_per_epoch=1):
    return learning_rate(step, config, Schedule(config.steps, steps_per_epoch))


def test_the_rate_rises_linearly_then_falls_as_a_cosine():
    config = OptimiserSection(steps=110, warmup_steps=10, learning_rate=2.0)
    assert rate(0, config) == pytest.approx(0.2)
    assert rate(4, config) == pytest.approx(1.0)
    assert rate(9, config) == pytest.approx(2.0)
    assert rate(10, config) == pytest.approx(2.0)
    # A quarter, a half, all of the way: (1 + cos) / 2 of 99 %, above 1 %.
    quarter = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 4))
    assert rate(35, config) == pytest.approx(2 * quarter)
    assert rate(60, config) == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert rate(110, config) == pytest.approx(0.02)
    assert rate(10_000, config) == pytest.approx(0.02)


def test_a_schedule_that_is_all_warm_up_has_no_division_by_zero():
    config = OptimiserSection(steps=5, warmup_steps=5, learning_rate=1.0)
    assert [rate(s, config) for s in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rate(5, config) == pytest.approx(1.0)
    assert rate(0, OptimiserSection(steps=5, warmup_steps=0, learning_rate=1.0)) == 1.0


def test_the_published_rate_falls_by_epochs_and_stops_on_the_way():
    # 10 scans, one per step: epoch 200 of a line that falls to 1 % in 500.
    config = OptimiserSection(epochs=200, batch_size=1, learning_rate=4e-4, schedule="linear", warmup_steps=0)
    schedule = Schedule.of(config, num_cases=10, samples_per_step=1)
    assert (schedule.num_steps, schedule.steps_per_epoch) == (2000, 10)
    assert learning_rate(0, config, schedule) == 4e-4
    assert learning_rate(9, config, schedule) == 4e-4
    assert learning_rate(10, config, schedule) == pytest.approx(4e-4 * (1 - 0.99 / 500))
    # Spec: the last epoch's rate is about 2.4e-4, a factor of 0.606.
    assert learning_rate(1999, config, schedule) == pytest.approx(4e-4 * 0.606, rel=1e-3)
    assert learning_rate(10_000_000, config, schedule) == pytest.approx(4e-6)


def test_a_polynomial_rate_is_that_of_what_is_left():
    config = OptimiserSection(
        steps=100, warmup_steps=0, learning_rate=2.0, schedule="polynomial", final_rate=0.02
    )
    assert rate(0, config) == 2.0
    assert rate(75, config) == pytest.approx(2 * 0.25**0.9)
    assert rate(99, config) == pytest.approx(2 * 0.02**0.9)


@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
def test_time_that_runs_out_lowers_the_rate_as_steps_do(schedule):
    config = OptimiserSection(steps=100, warmup_steps=0, learning_rate=2.0, schedule=schedule)
    limited = Schedule.of(config, num_cases=3, samples_per_step=1, minutes=2.0)
    assert limited == Schedule(100, 3, 120.0)
    assert learning_rate(10, config, limited, 60.0) == rate(50, config)
    # Whichever of the two leaves less.
    assert learning_rate(80, config, limited, 60.0) == rate(80, config)
    assert learning_rate(10, config, limited, 500.0) == rate(100, config)


def test_a_constant_rate_is_constant_after_the_rise():
    config = OptimiserSection(steps=9, learning_rate=2.0, schedule="constant", warmup_steps=2)
    assert [rate(s, config) for s in (0, 1, 2, 8)] == [1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(("cases", "per_step", "expected"), [(28, 2, 14), (28, 3, 9), (2, 8, 1)])
def test_an_epoch_has_as_many_samples_as_scans(cases, per_step, expected):
    config = OptimiserSection(epochs=3)
    assert Schedule.of(config, cases, per_step) == Schedule(3 * expected, expected)
