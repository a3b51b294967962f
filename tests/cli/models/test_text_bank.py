import pytest
import torch

from clickvol.image_encoders.text_bank import make_text_bank
from clickvol.weights import text_tower
from clickvol.weights.text_bank_file import read_text_bank


def encode(sentences):
    return torch.stack([torch.tensor([1.0, float("tumor" in s), len(s) / 100]) for s in sentences])


@pytest.fixture
def folders_asked(monkeypatch):
    asked = []

    def local(folder):
        asked.append(folder)
        return encode, "by hand"

    monkeypatch.setattr(text_tower, "local_text_encoder", local)
    return asked


def test_the_file_has_the_texts_of_the_encoder(run, tmp_path, folders_asked):
    path = tmp_path / "kidney.safetensors"
    outcome = run("models", "text-bank", "--object", "kidney", "--encoder", tmp_path, "-o", path)
    assert outcome.code == 0
    assert folders_asked == [tmp_path]
    assert "texts about 'kidney' by by hand" in outcome.out
    bank = read_text_bank(path, "kidney")
    assert torch.equal(bank.columns, make_text_bank(encode, "kidney", "by hand").columns)
    assert bank.text_encoder == "by hand"


def test_clip_is_looked_for_in_the_cache(run, tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    done = run("models", "text-bank", "--object", "kidney", "-o", tmp_path / "b")
    assert done.code == 2
    assert f"no text encoder in {tmp_path / 'cache' / 'models' / 'clip-vit-l-14-text'}" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--object", "kidney", "-o", "no/such/folder/b"), "the folder of no/such/folder/b"),
        (("--object", " ", "-o", "b"), "need a word for the object"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, folders_asked, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    outcome = run("models", "text-bank", *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_without_an_encoder_it_says_where_it_looked(run, tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    outcome = run("models", "text-bank", "--object", "kidney", "-o", tmp_path / "b")
    assert outcome.code == 2
    assert "there is no text encoder in" in outcome.err
