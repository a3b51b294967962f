"""What a run trains: all in which methods for volumes and for slices differ."""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from clickvol.datasets.samples import LabelledVolume
from clickvol.preprocessing.channels import OrganMaskSource
from clickvol.weights.card import FieldOfViewPlan


class Batch(Protocol):
    """Samples that go through the network together: a dataclass of tensors."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def label(self) -> Tensor:
        """(B, 1, ...) truth."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""


SampleT = TypeVar("SampleT", bound=Batch)


class Task(Generic[SampleT], metaclass=ABCMeta):
    """A network, its samples and its loss. The loader's processes get a copy.

    Attributes:
        network_config: configuration of the network, for the card.
        kind: class of the networks that a run can start from.
        organs: where organ masks come from; None for networks that see none.
        fields_of_view: that the model is trained for; None for slices.
        small_object_exponent: see `SamplingSection`.
        notes: what the card must say of texts and masks.
    """

    network_config: object
    kind: type[nn.Module]
    organs: OrganMaskSource | None
    fields_of_view: FieldOfViewPlan | None
    small_object_exponent: float
    notes: tuple[str, ...]

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Return the network before the first step; what is not trained wants no gradient.

        Raises:
            ConfigError: when the foundation is of another shape.
        """

    @abstractmethod
    def make_step(self, network: nn.Module) -> nn.Module:
        """Return the module from a batch and its `SampleNumbers` to its loss, with `network` in it.

        Beside the loss it returns two scalars without gradient: the Dice of the masks and the soft Dice loss.
        """

    @abstractmethod
    def num_items(self, cases: Sequence[LabelledVolume]) -> int:
        """Return how many things an epoch passes over."""

    @abstractmethod
    def draw(self, case: LabelledVolume, *, rng: np.random.Generator) -> SampleT:
        """Draw a sample to train on."""

    @abstractmethod
    def draw_plain(self, case: LabelledVolume, *, rng: np.random.Generator) -> SampleT:
        """Draw a sample that shows the object, without changes of the image."""

    @abstractmethod
    def stack(self, samples: list[SampleT]) -> SampleT:
        """Join samples into a batch: a new first axis on every field."""
