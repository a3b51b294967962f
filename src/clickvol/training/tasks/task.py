"""What a run trains: all in which methods for volumes and for slices differ."""

from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from clickvol.datasets.loader import Sampler
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


class Step(nn.Module):
    """From a batch and the number of the step to the loss, with the network in it.

    Besides the loss it returns, without gradient, what `figures` names, and the loss by which the best weights
    are chosen: scalars, or a vector where there are several figures. Nothing is read back from the device.

    Attributes:
        figures: names of what is told of a step besides its loss, of which the first is the Dice of the masks.
    """

    figures: tuple[str, ...] = ("dice",)

    def kind(self, number: int) -> int:  # noqa: ARG002  # others differ
        """Return what the host decides about a step from its number; all else is the same in every step."""
        return 0


class Task(Generic[SampleT], metaclass=ABCMeta):
    """A network, its samples and its loss.

    Attributes:
        network_config: configuration of the network, for the card.
        kind: class of the networks that a run can start from.
        organs: where organ masks come from; None for networks that see none.
        fields_of_view: that the model is trained for; None for slices.
        notes: what the card must say of texts and masks.
    """

    network_config: object
    kind: type[nn.Module]
    organs: OrganMaskSource | None
    fields_of_view: FieldOfViewPlan | None
    notes: tuple[str, ...]

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Return the network before the first step; what is not trained wants no gradient.

        Raises:
            ConfigError: when the foundation is of another shape.
        """

    @abstractmethod
    def make_step(self, network: nn.Module) -> Step:
        """Return the step with `network` in it."""

    @abstractmethod
    def num_items(self, cases: Sequence[LabelledVolume]) -> int:
        """Return how many things an epoch passes over."""

    @abstractmethod
    def sampler(
        self, cases: Sequence[LabelledVolume], phantoms: Sequence[LabelledVolume], device: torch.device
    ) -> Sampler[SampleT]:
        """Return what makes the batches of the run; those of patches are made on the device.

        Raises:
            ConfigError: when there is nothing to train on.
        """

    @abstractmethod
    def plain_batches(
        self, cases: Sequence[LabelledVolume], count: int, device: torch.device
    ) -> Iterator[SampleT]:
        """Yield a batch of `count` samples per case that show the object, without changes of the image."""
