import json

import pytest
import torch

from clickvol.errors import DamagedWeightsError, ModelNotFoundError
from clickvol.weights.card import ModelCard, find_base
from clickvol.weights.difference import add_difference, difference_of
from clickvol.weights.load import load_model
from clickvol.weights.safe_file import write_weights


def test_a_matrix_of_one_rank_is_two_vectors():
    base = {"w": torch.zeros(20, 30), "b": torch.zeros(3)}
    change = torch.outer(torch.arange(20.0), torch.ones(30))
    difference = difference_of(base, {"w": change, "b": torch.tensor([1.0, 2, 3])}, 106)
    assert {name: tuple(t.shape) for name, t in difference.items()} == {
        "b": (3,),
        "w:left": (20, 1),
        "w:right": (1, 30),
    }
    result = add_difference(base, difference)
    assert torch.allclose(result["w"], change, atol=1e-5)
    assert result["b"].tolist() == [1, 2, 3]


def test_what_does_not_fit_is_left_out_and_what_did_not_change_too():
    base = {"w": torch.zeros(20, 30), "same": torch.ones(4)}
    change = torch.outer(torch.arange(20.0), torch.ones(30))
    assert difference_of(base, {"w": change, "same": torch.ones(4)}, 99) == {}


def test_the_larger_singular_values_come_first_over_all_matrices():
    torch.manual_seed(0)
    base = {"small": torch.zeros(8, 8), "large": torch.zeros(8, 8)}
    change = {"small": torch.diag(torch.full((8,), 0.1)), "large": torch.diag(torch.arange(8.0))}
    difference = difference_of(base, change, 3 * 16 * 2)
    assert {name: tuple(t.shape) for name, t in difference.items()} == {
        "large:left": (8, 3),
        "large:right": (3, 8),
    }
    assert add_difference(base, difference)["large"].diagonal().tolist() == pytest.approx([0] * 5 + [5, 6, 7])


def test_a_full_matrix_is_written_whole():
    base = {"w": torch.zeros(6, 2, 3)}
    change = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1))
    difference = difference_of(base, {"w": change}, 10_000)
    assert list(difference) == ["w"]
    assert torch.equal(add_difference(base, difference)["w"], change)


@pytest.mark.parametrize(
    "difference",
    [
        {"v": torch.ones(2)},
        {"w": torch.ones(3)},
        {"w:left": torch.ones(2, 1)},
        {"w:left": torch.ones(2, 1), "w:right": torch.ones(2, 2)},
        {"w:right": torch.ones(1, 2)},
    ],
)
def test_what_does_not_belong_to_the_base_is_damage(difference):
    with pytest.raises(DamagedWeightsError, match="make the model again"):
        add_difference({"w": torch.zeros(2, 2)}, difference)


@pytest.fixture
def save_adapted(save_model, tiny_state, tmp_path):
    """Write the tiny model and one that differs from it in its first norm; return the cards."""

    def save(**base):
        card = save_model()
        content = json.loads(card.read_text())
        folder = tmp_path / "adapted"
        folder.mkdir(exist_ok=True)
        name = next(n for n in tiny_state if n.endswith("norm1.weight"))
        sha256, _ = write_weights(
            {name: torch.full_like(tiny_state[name], 0.5)}, folder / "a.safetensors", dtype=torch.float16
        )
        facts = {"id": "m", "sha256": content["sha256"], "card": "../m.json"} | base
        content |= {"id": "a", "base": facts, "sha256": sha256, "weights_file": "a.safetensors"}
        adapted = folder / "a.json"
        adapted.write_text(json.dumps(content))
        return card, adapted, name

    return save


def test_an_adapted_model_is_its_base_and_the_difference(save_adapted):
    card, adapted, name = save_adapted()
    base = load_model(card, device="cpu").network.state_dict()
    state = load_model(adapted.with_suffix(""), device="cpu").network.state_dict()
    assert torch.allclose(state[name], base[name] + 0.5)
    assert all(torch.equal(state[other], base[other]) for other in base if other != name)


def test_a_base_that_is_not_there_is_named(save_adapted):
    _, adapted, _ = save_adapted(card=None)
    with pytest.raises(
        ModelNotFoundError, match=r"a is only the difference from m .* not on this machine; put m.json"
    ):
        load_model(adapted, device="cpu")


def test_a_base_with_other_weights_is_refused(save_adapted):
    _, adapted, _ = save_adapted(sha256="0" * 64)
    with pytest.raises(ModelNotFoundError, match=r"000000000000.*has other weights"):
        load_model(adapted, device="cpu")


def test_a_shipped_base_is_refused_by_its_hash(save_adapted):
    _, adapted, _ = save_adapted(id="promise3d-small", card=None)
    with pytest.raises(ModelNotFoundError, match=r"promise3d-small.json has other weights"):
        load_model(adapted, device="cpu")


def test_a_base_is_no_difference_itself(save_adapted):
    card, adapted, _ = save_adapted()
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | {"base": {"id": "x", "sha256": "1"}}))
    with pytest.raises(DamagedWeightsError, match="no whole model"):
        find_base(ModelCard.model_validate_json(adapted.read_text()), adapted)
