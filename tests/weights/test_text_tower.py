"""A CLIP text tower of a few numbers, written by transformers and read from its folder."""

import importlib
import json

import pytest
import torch

from clickvol.errors import ConfigError, WeightsUnavailableError
from clickvol.image_encoders.text_bank import make_text_bank
from clickvol.weights.text_tower import clip_text_encoder


@pytest.fixture
def folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({name: n for n, name in enumerate(names)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(
        vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt")
    ).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=6,
        max_position_embeddings=77,
        bos_token_id=len(names) - 2,
        eos_token_id=len(names) - 1,
    )
    transformers.CLIPTextModelWithProjection(config).save_pretrained(tmp_path)
    return tmp_path


def test_the_tower_makes_a_bank(folder):
    bank = make_text_bank(clip_text_encoder(folder), "kidney", "tiny CLIP")
    assert bank.columns.shape == (6, 2)
    assert not torch.allclose(bank.columns[:, 0], bank.columns[:, 1])


def test_the_company_of_other_sentences_does_not_matter(folder):
    encode = clip_text_encoder(folder)
    sentences = ["a kidney", "a much longer sentence about a kidney", *["a liver"] * 40]
    together = encode(sentences)
    assert together.shape == (42, 6)
    for index in (0, 1, 41):
        torch.testing.assert_close(together[index], encode(sentences[index : index + 1])[0])
    assert not torch.allclose(together[0], together[1])


def test_without_files_it_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        WeightsUnavailableError, match=r"models/clip-vit-l-14-text; put config\.json"
    ):
        clip_text_encoder()
    with pytest.raises(WeightsUnavailableError, match="no CLIP text tower in"):
        clip_text_encoder(tmp_path)


def test_incomplete_files_are_said_in_one_line(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsUnavailableError, match="cannot be loaded") as raised:
        clip_text_encoder(folder)
    assert "\n" not in str(raised.value)


def test_without_transformers_it_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    original = importlib.import_module

    def refuse(name, package=None):
        if name == "transformers":
            raise ImportError(name)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match="needs the package transformers; install it"):
        clip_text_encoder(tmp_path)
