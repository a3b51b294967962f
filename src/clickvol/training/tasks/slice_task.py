"""Training of ProMISe-2D on slices of labelled scans and on pictures."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from clickvol.datasets.by_case.slice_samples import (
    Case2d,
    SliceSample,
    draw_slice_sample,
    joined_slices,
    num_images,
)
from clickvol.datasets.loader import CaseSampler
from clickvol.datasets.pictures import PictureCase
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sampling import SliceSampling
from clickvol.errors import ConfigError
from clickvol.methods.promise2d import Promise2d, promise2d_preset
from clickvol.methods.sam2d import Sam2d
from clickvol.training.config import Promise2dSection, TrainConfig
from clickvol.training.tasks.step2d import SliceStep
from clickvol.training.tasks.task import Step, Task
from clickvol.weights.load import load_network


class SliceTask(Task[SliceSample]):
    """Slices and pictures for ProMISe-2D on a frozen foundation.

    Args:
        config: of the run.

    Raises:
        ConfigError: for an unknown preset or size, or values that contradict each other.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._sampling = _slice_sampling(config)
        _check(config)
        section = config.promise2d or Promise2dSection()
        self._recipe = promise2d_preset(
            config.model.preset, config.model.size, section.mode, section.form, section.num_points
        )
        self._foundation = config.run.foundation
        # Where the network predicts points, none are drawn.
        draws = self._recipe.network.auto_prompter is None
        self._num_drawn = self._recipe.training.num_sampled_points if draws else 0
        self.network_config = self._recipe.network
        self.kind = Promise2d
        self.organs = None
        self.fields_of_view = None
        self._seed, self._phantom_share = config.run.seed, config.data.phantom_share
        kinds = {folder.modality == "picture" for folder in config.data.folders} or {False}
        words = [f"{self._sampling.plane} slices of scans"] * (False in kinds) + ["pictures"] * (True in kinds)
        self.notes = (f"Trained on {' and '.join(words)}; none without the object was shown.",)

    def build_network(self) -> nn.Module:
        """Return the network with the weights of its foundation, which want no gradient."""
        network = Promise2d(self._recipe.network)
        if not self._foundation:
            return network
        card, sam = load_network(self._foundation, Sam2d)
        if sam.config != self._recipe.network.sam:
            raise ConfigError(
                f"run.foundation is {card.id}, but model.size asks for another network; set model.size to the "
                "one that the foundation was imported as"
            )
        network.sam.load_state_dict(sam.state_dict())
        return network

    def make_step(self, network: nn.Module) -> Step:
        """Return network and loss in one."""
        if not isinstance(network, Promise2d):
            raise ConfigError("a network of promise2d is trained on slices; choose another model.method")
        repeats = self._sampling == self._sampling.without_changes()
        return SliceStep(network, self._recipe.training, repeats=repeats)

    def num_items(self, cases: Sequence[Case2d]) -> int:
        """Return the number of slices that show the object, and of pictures."""
        return sum(num_images(case, self._sampling.plane) for case in cases)

    def sampler(
        self,
        cases: Sequence[Case2d],
        phantoms: Sequence[LabelledVolume],
        device: torch.device,  # noqa: ARG002  # slices are drawn with numpy
    ) -> CaseSampler[Case2d, SliceSample]:
        """Return what draws slices as the configuration says."""
        return CaseSampler(
            cases,
            phantoms,
            phantom_share=self._phantom_share,
            draw=partial(self._drawn, self._sampling),
            join=joined_slices,
            seed=self._seed,
        )

    def plain_batches(
        self,
        cases: Sequence[Case2d],
        count: int,
        device: torch.device,  # noqa: ARG002  # slices are drawn with numpy
    ) -> Iterator[SliceSample]:
        """Yield slices as they are; of a picture one, since all would be the same."""
        for number, case in enumerate(cases):
            rng = np.random.default_rng([self._seed, number, 3])
            plain = self._sampling.without_changes()
            images = 1 if isinstance(case, PictureCase) else count
            yield joined_slices([self._drawn(plain, case, rng) for _ in range(images)])

    def _drawn(self, sampling: SliceSampling, case: Case2d, rng: np.random.Generator) -> SliceSample:
        return draw_slice_sample(case, self._recipe.network.sam, sampling, self._num_drawn, rng)


def _slice_sampling(config: TrainConfig) -> SliceSampling:
    if isinstance(config.sampling, SliceSampling):
        return config.sampling
    raise ConfigError(
        f"promise2d is trained on slices, but sampling.kind is {config.sampling.kind}; set it to slices"
    )


def _check(config: TrainConfig) -> None:
    """Refuse what cannot go together; ConfigError with what to change."""
    if not config.run.foundation and not config.run.start_from:
        raise ConfigError(
            "promise2d adds to a foundation, which it does not train; name one in run.foundation, such as "
            "litemedsam, or a model of promise2d in run.start_from"
        )
    if config.run.trained != "adapters":
        raise ConfigError("promise2d trains nothing of its foundation; set run.trained to adapters")
    if config.run.recompute_blocks:
        raise ConfigError(
            "the encoder of promise2d is frozen and has nothing to recompute; leave out run.recompute_blocks"
        )
    if config.run.compiled:
        raise ConfigError("run.compiled is for methods for volumes; set it to false")
    if config.data.intensity == "set":
        raise ConfigError("slices are windowed as segment-image does; set data.intensity to scan")
