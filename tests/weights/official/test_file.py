"""Reading torch files: what is allowed in, and that nothing is run."""

import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.weights.official.file import read_official_file


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


@pytest.fixture
def write(tmp_path):
    def save(content, **options):
        path = tmp_path / "x.pth.tar"
        torch.save(content, path, **options)
        return path

    return save


@pytest.mark.parametrize("archive", [True, False])
def test_tensors_numbers_and_containers(write, archive):
    content = {
        "epoch": 3,
        "best_val_loss": np.float64(0.25),
        "encoder_dict": OrderedDict(a=torch.arange(6.0).view(2, 3)),
        "feature_dict": [{"b": torch.ones(1)}],
        "encoder_opt": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 4e-4}]},
    }
    result = read_official_file(write(content, _use_new_zipfile_serialization=archive))
    assert result["best_val_loss"] == 0.25
    assert torch.equal(result["encoder_dict"]["a"], content["encoder_dict"]["a"])
    assert torch.equal(result["feature_dict"][0]["b"], torch.ones(1))
    assert result["encoder_opt"]["param_groups"] == [{"lr": 4e-4}]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
def test_numpy_numbers_of_every_kind(write, kind):
    assert read_official_file(write({"best_val_loss": kind(1)})) == {"best_val_loss": 1}


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers_by_the_module_names_of_numpy_1_and_2(write, tmp_path, module):
    path = write({"best_val_loss": np.float32(0.5)})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [n for n in parts if n.endswith("data.pkl")]
    assert b"numpy._core.multiarray\nscalar" in parts[name]
    parts[name] = parts[name].replace(b"cnumpy._core.multiarray\n", b"c" + module.encode() + b"\n")
    again = tmp_path / "again.pth.tar"
    with zipfile.ZipFile(again, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    assert read_official_file(again) == {"best_val_loss": np.float32(0.5)}


@pytest.mark.parametrize("archive", [True, False])
def test_a_file_that_would_run_code_is_refused_and_not_run(write, tmp_path, archive):
    target = tmp_path / "touched"
    path = write({"encoder_dict": {}, "x": Payload(target)}, _use_new_zipfile_serialization=archive)
    with pytest.raises(DamagedWeightsError, match="could run code; nothing was run") as caught:
        read_official_file(path)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    target = tmp_path / "touched"
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"x": Payload(target)}))
    with pytest.raises(DamagedWeightsError):
        read_official_file(tmp_path / "x.pth")
    assert not target.exists()


def test_a_whole_network_is_refused(write):
    with pytest.raises(DamagedWeightsError, match=r"holds torch\.nn\.modules\.linear\.Linear, which"):
        read_official_file(write({"model": torch.nn.Linear(1, 1)}))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off(write, part):
    path = write({"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(DamagedWeightsError, match="is cut off: the end of the archive is missing"):
        read_official_file(path)


def test_a_file_of_the_old_form_that_is_cut_off(write):
    path = write({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DamagedWeightsError, match="get it again"):
        read_official_file(path)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"PK\x03\x04", b"\x80\x02.", bytes(500)])
def test_what_is_no_torch_file(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(DamagedWeightsError, match="get it again") as caught:
        read_official_file(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_another_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(DamagedWeightsError, match=r"no file of torch\.save"):
        read_official_file(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(1), {1: 2}])
def test_what_is_no_dictionary_of_names(write, content):
    with pytest.raises(DamagedWeightsError, match="a dictionary of named weights is expected"):
        read_official_file(write(content))


def test_no_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ModelNotFoundError, match="there is no file"):
            read_official_file(path)
