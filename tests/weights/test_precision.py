import json

import pytest
import torch

from clickvol.weights import precision
from clickvol.weights.cache import CACHE_VARIABLE
from clickvol.weights.precision import CpuSpeeds, choose_precision, cpu_speeds, measured_once


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    cpu_speeds.cache_clear()
    yield tmp_path
    cpu_speeds.cache_clear()


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        # A Xeon with AVX-512 bf16 and no AMX, as measured.
        ((123, 84, 153, 91), torch.float32),
        ((100, 100, 100, 100), torch.float32),
        # Twice as fast in one of two alike: 1 / 0.75.
        ((100, 200, 100, 100), torch.bfloat16),
        ((100, 120, 100, 120), torch.float32),
        ((100, 800, 100, 500), torch.bfloat16),
    ],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(speeds, expected):
    assert CpuSpeeds(*speeds).faster == expected


def test_the_first_measurement_of_a_machine_counts(empty_cache, monkeypatch):
    first = cpu_speeds()
    assert min(first.linear_float32, first.convolution_bfloat16) > 0
    monkeypatch.setattr(precision, "_measured", lambda: CpuSpeeds(1, 99, 1, 99))
    assert cpu_speeds() == first
    # Another process of this machine.
    cpu_speeds.cache_clear()
    assert cpu_speeds() == first
    assert choose_precision(torch.device("cpu")) == first.faster
    (kept,) = json.loads((empty_cache / "models" / "cpu-speed" / "measured.json").read_text()).values()
    assert CpuSpeeds(**kept) == first


def test_a_process_that_measured_at_the_same_time_takes_the_first_value(empty_cache):
    def slow():
        measured_once("x", "y", lambda: 1)
        return 2

    assert measured_once("x", "y", slow) == 1
    assert measured_once("x", "z", lambda: 3) == 3


def test_without_a_cache_it_is_measured(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert measured_once("x", "y", lambda: 5) == 5


def test_a_damaged_file_is_measured_again(empty_cache):
    measured_once("x", "y", lambda: 1)
    (empty_cache / "models" / "x" / "measured.json").write_text("{")
    assert measured_once("x", "y", lambda: 2) == 2


def test_other_devices_stay_in_float32():
    assert choose_precision(torch.device("mps")) == torch.float32
