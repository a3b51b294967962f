"""What a published system has besides its network, loss and clicks, as data; and what a method consists of.

Every value names where it comes from on the method's page; `docs/explanation/fidelity.md` lists where paper,
released code and our repaired form differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from clickvol.errors import ConfigError
from clickvol.methods.volume_segmenter import VolumeSegmenterConfig


@dataclass(frozen=True, kw_only=True)
class BoundaryTerm:
    """ProMISe-3D's boundary loss: mean squared difference of the boundary maps |m - average pool of m|.

    Attributes:
        weight: factor of the term.
        kernel_dhw: pooling window, odd, voxels.
        border: what the pooling does at the faces of the patch: "zeros_counted" as released, which gives
            a constant map an edge there, or "inside_only".
        channels: "both" softmax channels against the one label, as released, or the "foreground".
        compared: with the label: the "probabilities" (released code) or the "logits" (text of the paper).
    """

    weight: float = 10.0
    kernel_dhw: tuple[int, int, int] = (5, 5, 5)
    border: Literal["zeros_counted", "inside_only"] = "inside_only"
    channels: Literal["both", "foreground"] = "foreground"
    compared: Literal["probabilities", "logits"] = "probabilities"

    def __post_init__(self) -> None:
        if any(n < 1 or n % 2 == 0 for n in self.kernel_dhw):
            raise ConfigError(f"kernel_dhw is {self.kernel_dhw}, but a pooling window needs odd sides")
        if self.compared == "logits" and self.channels == "both":
            raise ConfigError(
                "a boundary term of logits compares the foreground channel with the label; set channels"
            )


@dataclass(frozen=True, kw_only=True)
class AlignmentTerm:
    """TAGS' alignment of tokens with texts of healthy and diseased organs.

    Attributes:
        weight: factor of the term; 1 as released.
        focal_input: "scores" is the usual focal loss on softmax scores; "softmax_again" applies softmax to
            the scores once more, as the released code does.
        object_word: what the texts call the object: the "organ", or, as the released code does, the
            "dataset".
    """

    weight: float = 1.0
    focal_input: Literal["scores", "softmax_again"] = "scores"
    object_word: Literal["organ", "dataset"] = "organ"


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """The sum that is minimised: soft Dice of the foreground and cross-entropy, weighted, and the terms."""

    dice_weight: float = 0.5
    cross_entropy_weight: float = 0.5
    boundary: BoundaryTerm | None = None
    alignment: AlignmentTerm | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingClicks:
    """Clicks drawn from the label of a patch, with replacement, as the published methods train.

    Attributes:
        foreground: number drawn inside the object; none where the patch has no object.
        others: number of further clicks.
        others_from: the further ones are drawn from "everywhere" (released code, which calls them
            negative) or from the "background" (paper).
    """

    foreground: int = 10
    others: int = 20
    others_from: Literal["everywhere", "background"] = "everywhere"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A system to train and to compare.

    Attributes:
        method: id of the method.
        preset: name of this variant.
        network: its network.
        loss: what is minimised.
        training_clicks: clicks of a training patch; None trains with the simulated user of
            `datasets.samples` (signed clicks, corrections).
        num_validation_clicks: clicks inside the object by which the best weights are chosen, where
            `training_clicks` are given; 10 in the released code of all three systems.
    """

    method: str
    preset: str
    network: VolumeSegmenterConfig
    loss: LossRecipe = LossRecipe()
    training_clicks: TrainingClicks | None = None
    num_validation_clicks: int = 10


@dataclass(frozen=True, slots=True)
class Method:
    """What `methods.registry` looks for on the page of a method.

    Attributes:
        config_type: dataclass of its networks' configuration (or a generic one, of a type), as a card holds it.
        build: configuration -> network with random weights.
        recipe: (preset, size) -> recipe; None where the method is not for scans.
    """

    config_type: Any
    build: Callable[[Any], nn.Module]
    recipe: Callable[[str, str], Recipe] | None = None
