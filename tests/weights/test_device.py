import pytest
import torch

from clickvol.errors import DeviceError
from clickvol.weights import device
from clickvol.weights.device import choose_device, device_of_worker


@pytest.fixture
def without_accelerators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_the_cpu_is_always_there(without_accelerators, name):
    assert choose_device(name) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "meta"])
def test_a_device_that_is_not_there_is_refused(without_accelerators, name):
    with pytest.raises(DeviceError, match=f"the device '{name}' is not available on this machine"):
        choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU", "cuda:-1"])
def test_a_name_that_is_no_device_is_refused(name):
    with pytest.raises(DeviceError, match=f"there is no device '{name}'; choose auto"):
        choose_device(name)


def test_auto_takes_cuda_before_mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("mps")


def test_a_gpu_number_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="'cuda:2' is not available"):
        choose_device("cuda:2")


def test_workers_of_one_machine_share_its_cuda_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of_worker("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (device_of_worker("cuda"), device_of_worker("cuda:1"), device_of_worker("cpu")) == (
        "cuda:0", "cuda:1", "cpu",
    )  # fmt: skip
    for number, expected in enumerate(["cuda:0", "cuda:1", "cuda:0"]):
        monkeypatch.setattr(device, "worker_number", lambda number=number: number)
        assert device_of_worker("auto") == expected
