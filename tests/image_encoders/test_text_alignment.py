import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.image_encoders.text_alignment import TextAlignment, TextAlignmentConfig
from reference.compare import deviation, noise, randomise


def test_one_layer_by_hand():
    alignment = TextAlignment(2, TextAlignmentConfig(text_width=2, blend=0.25))
    with torch.no_grad():
        alignment.to_text.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
    tokens = torch.tensor([3.0, 1.0]).view(1, 1, 1, 1, 2)
    blended, aligned = alignment(tokens)
    # W x = (5, -1), with a slope of 0.01 below zero.
    assert aligned.flatten().tolist() == pytest.approx([5.0, -0.01])
    assert blended.flatten().tolist() == pytest.approx([0.75 * 3 + 0.25 * 5, 0.75 - 0.25 * 0.01])
    assert list(alignment.state_dict()) == ["to_text.weight"]


def test_a_text_space_of_another_width_has_a_way_back():
    alignment = randomise(TextAlignment(3, TextAlignmentConfig(text_width=5, blend=0.2)))
    tokens = noise(2, 2, 3, 4, 3)
    blended, aligned = alignment(tokens)
    assert aligned.shape == (2, 2, 3, 4, 5)
    back = aligned @ alignment.from_text.weight.T
    assert deviation(blended, 0.8 * tokens + 0.2 * back) < 1e-6
    assert {n: tuple(p.shape) for n, p in alignment.named_parameters()} == {
        "to_text.weight": (5, 3),
        "from_text.weight": (3, 5),
    }


@pytest.mark.parametrize("text_width", [3, 5])
def test_a_blend_of_nothing_leaves_the_tokens_to_the_bit(text_width):
    alignment = randomise(TextAlignment(3, TextAlignmentConfig(text_width=text_width, blend=0.0)))
    tokens = noise(1, 2, 2, 2, 3)
    assert torch.equal(alignment(tokens)[0], tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_width": 0}, "text_width is 0"),
        ({"blend": -0.1}, r"blend is -0\.1"),
        ({"blend": 1.1}, r"blend is 1\.1, but it is a part, from 0 to 1"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        TextAlignmentConfig(**change)
