import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from clickvol.errors import ConfigError, DamagedWeightsError, ModelNotFoundError
from clickvol.image_encoders.text_bank import TextBank, sentences_sha256, stub_text_bank
from clickvol.weights.text_bank_file import read_text_bank, write_text_bank
from reference.compare import noise


@pytest.fixture
def bank():
    columns = F.normalize(noise(12, 2), dim=0)
    return TextBank(columns, "kidney", "some encoder", sentences_sha256("kidney"))


@pytest.fixture
def path(bank, tmp_path):
    write_text_bank(bank, tmp_path / "kidney.safetensors")
    return tmp_path / "kidney.safetensors"


def rewrite(path, *, columns=None, **changes):
    """Write the file again with other metadata; a None drops the entry."""
    with safe_open(path, framework="pt") as file:
        facts, kept = file.metadata() | changes, file.get_tensor("columns")
    facts = {name: value for name, value in facts.items() if value is not None}
    save_file({"columns": kept if columns is None else columns}, path, metadata=facts)


def test_written_and_read_it_is_the_same(bank, path):
    result = read_text_bank(path, "kidney")
    assert torch.equal(result.columns, bank.columns)
    assert (result.object_word, result.text_encoder) == ("kidney", "some encoder")
    assert result.sentences_sha256 == bank.sentences_sha256


def test_a_stub_stays_one(tmp_path):
    write_text_bank(stub_text_bank(8, 0, "liver"), tmp_path / "b.safetensors")
    assert read_text_bank(tmp_path / "b.safetensors", "liver").is_stub


def test_a_bank_of_another_object_is_refused(path):
    with pytest.raises(ConfigError, match="is about 'kidney', not 'liver'"):
        read_text_bank(path, "liver")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentences_sha256": "0" * 64}, "from other sentences"),
        ({"sentences_sha256": None}, "from other sentences"),
        ({"format": "something else"}, "is not a text bank of this version"),
        ({"columns": torch.ones(4, 2)}, r"is damaged: .* length 1"),
        ({"columns": torch.ones(4, 3)}, r"is damaged: .* shape \(E_text, 2\)"),
    ],
)
def test_what_was_changed_is_refused(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(DamagedWeightsError, match=message):
        read_text_bank(path, "kidney")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ModelNotFoundError, match="does not exist; make it"):
        read_text_bank(tmp_path / "b.safetensors", "kidney")


def test_other_files_are_refused_and_no_pickle_is_run(tmp_path):
    torch.save({"columns": torch.ones(2, 2)}, tmp_path / "b.pt")
    (tmp_path / "b.txt").write_text("kidney")
    save_file({"weights": torch.ones(2)}, tmp_path / "b.safetensors")
    for name in ("b.pt", "b.txt", "b.safetensors"):
        with pytest.raises(DamagedWeightsError, match="is not a text bank"):
            read_text_bank(tmp_path / name, "kidney")
