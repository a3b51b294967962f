import hashlib
import io
import pickle

import pytest
import torch

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.weights.safe_file import read_weights, write_weights


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_written_comes_back_as_float32(tmp_path):
    state = {"a": torch.tensor([1.5, -2.0]), "b": torch.arange(6.0).view(2, 3).T}
    path = tmp_path / "w.safetensors"
    digest, size = write_weights(state, path, dtype=torch.float16)
    assert digest == sha256(path)
    assert size == path.stat().st_size
    result = read_weights(path, sha256=digest)
    assert result["a"].tolist() == [1.5, -2.0]
    assert result["b"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert {t.dtype for t in result.values()} == {torch.float32}


def test_half_precision_is_kept_in_the_file(tmp_path):
    path = tmp_path / "w.safetensors"
    _, full = write_weights({"a": torch.ones(5000)}, path, dtype=torch.float32)
    _, half = write_weights({"a": torch.ones(5000)}, path, dtype=torch.float16)
    assert full - half == 10_000


def test_the_same_weights_make_the_same_file(tmp_path):
    state = {"a": torch.ones(3), "b": torch.zeros(2)}
    first = write_weights(state, tmp_path / "1", dtype=torch.float32)
    assert write_weights(state, tmp_path / "2", dtype=torch.float32) == first


def test_only_the_file_itself_is_left(tmp_path):
    write_weights({"a": torch.ones(3)}, tmp_path / "w.safetensors", dtype=torch.float32)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"w\.safetensors are missing, but their card"):
        read_weights(tmp_path / "w.safetensors", sha256="")


@pytest.mark.parametrize("change", ["truncated", "longer", "one bit", "empty"])
def test_a_changed_file_is_damaged(tmp_path, change):
    path = tmp_path / "w.safetensors"
    digest, _ = write_weights({"a": torch.ones(30)}, path, dtype=torch.float32)
    content = path.read_bytes()
    changed = {
        "truncated": content[:-1],
        "longer": content + b"\0",
        "one bit": content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
        "empty": b"",
    }
    path.write_bytes(changed[change])
    with pytest.raises(DamagedWeightsError, match="are damaged: sha256 is"):
        read_weights(path, sha256=digest)


@pytest.mark.parametrize("content", [b"", b"\x08", b"not weights at all", b"\xff" * 100])
def test_what_is_not_safetensors_is_refused_although_the_hash_fits(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedWeightsError, match="is not a safetensors file"):
        read_weights(path, sha256=sha256(path))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_run(tmp_path, protocol):
    path, touched = tmp_path / "w.safetensors", tmp_path / "touched"
    path.write_bytes(pickle.dumps(Payload(touched), protocol=protocol))
    with pytest.raises(DamagedWeightsError):
        read_weights(path, sha256=sha256(path))
    assert not touched.exists()
    # The pickle is a live one.
    pickle.loads(path.read_bytes())
    assert touched.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_checkpoint_is_refused_and_not_run(tmp_path, zipped):
    path, touched = tmp_path / "w.safetensors", tmp_path / "touched"
    buffer = io.BytesIO()
    content = {"a": torch.ones(2), "b": Payload(touched)}
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DamagedWeightsError, match="is a pickle, which can run code"):
        read_weights(path, sha256=sha256(path))
    assert not touched.exists()


def test_a_pickle_is_refused_before_its_hash_is_looked_at(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(DamagedWeightsError, match="is a pickle"):
        read_weights(path, sha256="0" * 64)


def test_others_may_read_a_model_that_was_written(tmp_path):
    write_weights({"a": torch.zeros(2)}, tmp_path / "a.safetensors", dtype=torch.float32)
    (tmp_path / "other").touch()
    usual = (tmp_path / "other").stat().st_mode
    assert (tmp_path / "a.safetensors").stat().st_mode == usual
