"""A CLIP text tower of a few numbers, written by transformers and read from its folder."""

import importlib
import json

import pytest
import torch

from clickvol.errors import ConfigError, WeightsUnavailableError
from clickvol.image_encoders.text_bank import make_text_bank
from clickvol.weights.text_tower import local_text_encoder


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
    bank = make_text_bank(local_text_encoder(folder)[0], "kidney", "tiny CLIP")
    assert bank.columns.shape == (6, 2)
    assert not torch.allclose(bank.columns[:, 0], bank.columns[:, 1])


def test_the_company_of_other_sentences_does_not_matter(folder):
    encode, _ = local_text_encoder(folder)
    sentences = ["a kidney", "a much longer sentence about a kidney", *["a liver"] * 40]
    together = encode(sentences)
    assert together.shape == (42, 6)
    for index in (0, 1, 41):
        torch.testing.assert_close(together[index], encode(sentences[index : index + 1])[0])
    assert not torch.allclose(together[0], together[1])


def test_without_files_it_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsUnavailableError, match=r"models/clip-vit-l-14-text .* put the files"):
        local_text_encoder()
    with pytest.raises(WeightsUnavailableError, match="there is no text encoder in"):
        local_text_encoder(tmp_path)


def test_incomplete_files_are_said_in_one_line(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsUnavailableError, match="cannot be loaded") as raised:
        local_text_encoder(folder)
    assert "\n" not in str(raised.value)


def test_without_transformers_it_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    original = importlib.import_module

    def refuse(name, package=None):
        if name == "transformers":
            raise ImportError(name)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match="a text encoder needs transformers; run: pip install"):
        local_text_encoder(tmp_path)


@pytest.fixture
def sentence_folder(tmp_path):
    """A BERT of a few numbers over letters."""
    transformers = pytest.importorskip("transformers")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(names),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_sentence_encoder_is_the_mean_of_its_tokens_and_called_a_stand_in(sentence_folder):
    encode, name = local_text_encoder(sentence_folder)
    assert name.endswith("(bert sentence encoder, a stand-in for CLIP's text tower)")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(sentence_folder, local_files_only=True)
    network = transformers.AutoModel.from_pretrained(sentence_folder, local_files_only=True).eval()
    with torch.inference_mode():
        expected = network(**tokenizer(["a kidney"], return_tensors="pt")).last_hidden_state[0]
    result = encode(["a kidney", "a much longer sentence about a kidney"])
    torch.testing.assert_close(result[0], expected.mean(dim=0))
    assert make_text_bank(encode, "kidney", name).width == 8


def test_the_tower_is_told_from_a_stand_in(folder, tmp_path):
    _, name = local_text_encoder(folder)
    assert name == f"CLIP text tower {folder.name}"
    with pytest.raises(WeightsUnavailableError, match="there is no text encoder in"):
        local_text_encoder(tmp_path / "elsewhere")
