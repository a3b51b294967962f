import hashlib
import logging
import math

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.image_encoders.text_bank import (
    TEMPLATES,
    TextBank,
    bank_sentences,
    make_text_bank,
    sentences_sha256,
    stub_text_bank,
)


def test_the_published_numbers_of_sentences():
    healthy, tumour = bank_sentences("kidney")
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 34
    assert len(healthy) == len(set(healthy)) == 272
    assert len(tumour) == len(set(tumour)) == 204
    assert not set(healthy) & set(tumour)
    assert all("kidney" in sentence and "{" not in sentence for sentence in healthy + tumour)


def test_the_forms_of_a_sentence():
    healthy, tumour = bank_sentences(" liver ")
    assert healthy[0] == "this is one liver in the scene."
    assert "a low resolution 3D photo of the flawless liver." in healthy
    assert "there is the liver without lesion in the scene." in healthy
    assert "a 3D photo of one diseased liver." in tumour
    assert "a cropped 3D photo of a liver with tumor." in tumour
    # The size and the pose are the object's, all else is the photo's.
    assert "a 3D photo of a large diseased liver." in tumour
    assert "a 3D photo of the rotated liver without flaw." in healthy
    assert sum(f" {word} " in s for s in healthy + tumour for word in ("large", "small", "rotated")) == 84
    assert not any(f"a {word} 3D" in s for s in healthy + tumour for word in ("large", "small", "rotated"))
    assert sum("3D photo" in sentence for sentence in healthy) == 8 * 29
    assert sum("in the scene" in sentence for sentence in tumour) == 6 * 5


def test_without_a_word_there_is_no_sentence():
    with pytest.raises(ConfigError, match="need a word for the object"):
        bank_sentences("  ")


def test_the_hash_tells_other_sentences_apart():
    healthy, tumour = bank_sentences("kidney")
    text = "\n".join([*healthy, "", *tumour]).encode()
    assert sentences_sha256("kidney") == hashlib.sha256(text).hexdigest()
    assert sentences_sha256("kidney") != sentences_sha256("kits")


def test_each_class_is_the_mean_of_unit_vectors():
    def encode(sentences):
        # "flawless" goes up with length 7, all else goes right with length 2: 34 of 272 and none of 204.
        up, right = torch.tensor([0.0, 7.0, 0.0]), torch.tensor([2.0, 0.0, 0.0])
        return torch.stack([up if "flawless" in s else right for s in sentences])

    bank = make_text_bank(encode, " kidney ", "by hand")
    # 34 up and 238 right: 1 : 7.
    assert bank.columns[:, 0].tolist() == pytest.approx([7 / math.sqrt(50), 1 / math.sqrt(50), 0])
    assert bank.columns[:, 1].tolist() == [1.0, 0.0, 0.0]
    assert bank.columns.dtype == torch.float32
    assert (bank.width, bank.object_word, bank.text_encoder) == (3, "kidney", "by hand")
    assert bank.sentences_sha256 == sentences_sha256("kidney")
    assert not bank.is_stub


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda s: torch.ones(3, 4), r"\(3, 4\) for 272 sentences"),
        (lambda s: torch.ones(len(s)), r"\(272,\) for 272 sentences"),
        (lambda s: torch.zeros(len(s), 4), "not finite or all zeros"),
        (lambda s: torch.full((len(s), 4), math.nan), "not finite or all zeros"),
    ],
)
def test_an_encoder_that_gives_something_else_is_refused(encode, message):
    with pytest.raises(ConfigError, match=message):
        make_text_bank(encode, "kidney", "by hand")


def test_opposite_sentences_have_no_mean_direction():
    def encode(sentences):
        signs = torch.tensor([1.0, -1.0]).repeat(len(sentences) // 2)
        return signs[:, None].expand(-1, 2)

    with pytest.raises(ConfigError, match="length 1"):
        make_text_bank(encode, "kidney", "by hand")


def test_the_stub_is_seeded_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        bank, again, other = (stub_text_bank(16, seed) for seed in (1, 1, 2))
    assert "the text bank is a stub" in caplog.text
    assert bank.is_stub
    assert bank.columns.shape == (16, 2)
    assert bank.columns.norm(dim=0).tolist() == pytest.approx([1.0, 1.0])
    assert torch.equal(bank.columns, again.columns)
    assert not torch.equal(bank.columns, other.columns)
    # Near each other as texts about one object are: 100 times a cosine leaves a gradient then.
    assert float(bank.columns[:, 0] @ bank.columns[:, 1]) == pytest.approx(0.9, abs=1e-6)


def test_a_stub_needs_room_for_two_directions():
    with pytest.raises(ConfigError, match="at least 2"):
        stub_text_bank(1, 0)


@pytest.mark.parametrize("columns", [torch.ones(4), torch.ones(4, 3), torch.ones(0, 2)])
def test_a_bank_has_two_columns(columns):
    with pytest.raises(ConfigError, match=r"has shape \(E_text, 2\)"):
        TextBank(columns, "kidney", "by hand", "")


def test_the_columns_of_a_bank_have_length_one():
    with pytest.raises(ConfigError, match=r"length 1, not \[2\.0, 2\.0\]"):
        TextBank(torch.ones(4, 2), "kidney", "by hand", "")
