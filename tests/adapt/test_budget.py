import pytest

from clickvol.adapt.budget import Budget, machine_speed


def test_minutes_become_steps_and_objects():
    budget = Budget.of(600, 1.0, 3, 100, 10)
    assert (budget.num_steps, budget.num_objects) == (128, 36)
    assert Budget.of(600, 1.0, 3, 12, 10).num_objects == 12
    assert Budget.of(1, 1.0, 3, 100, 5) == Budget(num_folds=3, num_steps=20, num_objects=5)
    assert Budget.of(1, 1.0, 3, 100, 50) == Budget(num_folds=3, num_steps=20, num_objects=6)


def test_progress_rises_to_one():
    budget = Budget(num_folds=2, num_steps=30, num_objects=10)
    parts = [budget.done_before(0), budget.done_before(10)]
    for fold in (0, 1):
        parts += [budget.done_training(fold, 1), budget.done_training(fold, 30), budget.done_after(fold, 1.0)]
    assert parts == sorted(parts)
    assert parts[0] == pytest.approx(0.05)
    assert parts[-1] == pytest.approx(1)


def test_the_speed_is_measured_once_and_rounded(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path))
    assert machine_speed("a" * 64, lambda: 1.2345) == 1.2
    assert machine_speed("a" * 64, lambda: 9.9) == 1.2
    assert machine_speed("b" * 64, lambda: 9.9) == 9.9
