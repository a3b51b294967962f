"""Training of the networks for volumes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from clickvol.datasets.loader import draw_any_sample
from clickvol.datasets.samples import LabelledVolume, TrainingSample, stack
from clickvol.datasets.sampling import (
    PublishedSampling,
    SamplingSection,
    SliceSampling,
    VolumeSampling,
)
from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d
from clickvol.methods.freezing import freeze_foundation
from clickvol.methods.lift import lift_foundation
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.recipe import Recipe
from clickvol.methods.registry import find_method, find_recipe
from clickvol.methods.sam2d import Sam2d
from clickvol.methods.tags import with_text_width
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.training.config import TrainConfig
from clickvol.training.tasks.step import TrainingStep
from clickvol.training.tasks.tags_inputs import load_text_bank, organ_source, tags_notes
from clickvol.training.tasks.task import Task
from clickvol.weights.card import FieldOfViewPlan
from clickvol.weights.load import load_network


class VolumeTask(Task[TrainingSample]):
    """Patches of scans for a network of a 3D method.

    Args:
        config: of the run.

    Raises:
        ConfigError: for an unknown preset or size, or values that contradict each other.
        ClickvolError: when the source of texts is not there or damaged.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._sampling = _volume_sampling(config)
        recipe = _recipe_of(config, self._sampling)
        bank = load_text_bank(config, recipe)
        self._text = None if bank is None else bank.columns
        self._recipe = recipe if bank is None else with_text_width(recipe, bank.width)
        self.network_config = self._recipe.network
        self.kind = VolumeSegmenter
        self.organs = organ_source(config.tags, recipe.network.num_channels)
        self.fields_of_view = _fields_of_view(self._sampling)
        self.small_object_exponent = self._sampling.small_object_exponent
        self.notes = tuple(tags_notes(config, bank, self.organs))

    def build_network(self) -> nn.Module:
        """Return the network, with the foundation lifted into it where one is named."""
        network = find_method(self._config.model.method).build(self._recipe.network)
        if isinstance(network, LiftedSegmenter):
            _prepare_encoder(network, self._config)
        return network

    def make_step(self, network: nn.Module) -> nn.Module:
        """Return clicks, network and loss in one."""
        if not isinstance(network, VolumeSegmenter):
            raise ConfigError(
                f"{self._config.model.method} is no method for volumes; choose another model.method"
            )
        seed = self._config.run.seed
        return TrainingStep(network, self._recipe, self._sampling, seed, self._text)

    def num_items(self, cases: Sequence[LabelledVolume]) -> int:
        """Return the number of scans."""
        return len(cases)

    def draw(self, case: LabelledVolume, *, rng: np.random.Generator) -> TrainingSample:
        """Draw a patch as the configuration says."""
        return self._drawn(case, self._sampling, rng)

    def draw_plain(self, case: LabelledVolume, *, rng: np.random.Generator) -> TrainingSample:
        """Draw a patch of the object without augmentation."""
        return self._drawn(case, _unaugmented(self._sampling), rng)

    def stack(self, samples: list[TrainingSample]) -> TrainingSample:
        """Join patches into a batch."""
        return stack(samples)

    def _drawn(
        self, case: LabelledVolume, sampling: VolumeSampling, rng: np.random.Generator
    ) -> TrainingSample:
        network = self._recipe.network
        return draw_any_sample(case, network.patch_shape_dhw, sampling, rng, num_channels=network.num_channels)


def _volume_sampling(config: TrainConfig) -> VolumeSampling:
    if isinstance(config.sampling, SliceSampling):
        raise ConfigError(
            f"{config.model.method} is trained on patches, but sampling.kind is slices; set it to clicked, "
            "windows or published"
        )
    return config.sampling


def _recipe_of(config: TrainConfig, sampling: VolumeSampling) -> Recipe:
    """Return network, loss and clicks of a configuration."""
    recipe = find_recipe(config.model.method, config.model.preset, config.model.size)
    _check(config, recipe, sampling.kind)
    network = recipe.network
    if (
        isinstance(network, LiftedSegmenterConfig)
        and isinstance(network.encoder, LiftedTinyVitConfig)
        and not config.run.foundation
    ):
        # Without a foundation there are no statistics of other images to keep.
        network = replace(network, encoder=replace(network.encoder, frozen_norms=False))
        return replace(recipe, network=network)
    return recipe


def _check(config: TrainConfig, recipe: Recipe, kind: str) -> None:
    """Refuse what cannot go together.

    Raises:
        ConfigError: with both values and what to change.
    """
    network = recipe.network
    if network.is_automatic and kind == "clicked":
        raise ConfigError(
            f"{config.model.method} with the preset {config.model.preset} takes no clicks, but sampling.kind "
            "is clicked; set it to windows or published"
        )
    if not network.is_automatic and recipe.training_clicks is None and kind != "clicked":
        raise ConfigError(
            f"the preset {config.model.preset} is trained by a simulated user, but sampling.kind is {kind}; "
            "set it to clicked, or take another preset"
        )
    if not isinstance(network, LiftedSegmenterConfig):
        if config.run.foundation or config.run.trained == "adapters":
            raise ConfigError(
                f"{config.model.method} has no 2D foundation; leave out run.foundation and run.trained"
            )
        return
    doubles = getattr(network.encoder, "second_adapter", "none") == "doubled"
    if doubles and config.run.precision == "float16":
        # A factor of 2 per block leaves the range of float16.
        raise ConfigError(
            f"the preset {config.model.preset} doubles its tokens in every block, which float16 cannot hold; "
            "set run.precision to bfloat16 or float32"
        )


def _prepare_encoder(network: LiftedSegmenter, config: TrainConfig) -> None:
    if config.run.foundation:
        _, foundation = load_network(config.run.foundation, Sam2d)
        lift_foundation(foundation, network)
    if config.run.trained == "adapters":
        freeze_foundation(network)
    if not config.run.recompute_blocks:
        return
    if not isinstance(network.image_encoder, LiftedVit3d):
        raise ConfigError("run.recompute_blocks is for the sizes with SAM's blocks; set it to false")
    network.image_encoder.checkpoint_blocks = True


def _unaugmented(sampling: VolumeSampling) -> VolumeSampling:
    """Return the same way to draw without changes of the image; every patch shows the object."""
    if isinstance(sampling, PublishedSampling):
        nothing = {
            "shift_share": 0.0,
            "rotation_share": 0.0,
            "zoom_share": 0.0,
            "flip_share": 0.0,
            "quarter_turn_share": 0.0,
            "foreground_share": 1.0,
        }
        return sampling.model_copy(update=nothing)
    nothing = {"cut_share": 0.0, "rotation_degrees": 0.0, "stretch": 0.0, "elastic_voxels": 0.0}
    extra = {"implant_share": 0.0, "prior_share": 0.0} if sampling.kind == "clicked" else {}
    return sampling.model_copy(update=nothing | extra)


def _fields_of_view(sampling: VolumeSampling) -> FieldOfViewPlan:
    """Return the voxel sizes that the model was trained for."""
    if isinstance(sampling, SamplingSection):
        return FieldOfViewPlan(
            first_voxel_mm=sampling.first_voxel_mm,
            finest_voxel_mm=sampling.finest_voxel_mm,
            coarsest_voxel_mm=sampling.coarsest_voxel_mm,
        )
    return FieldOfViewPlan(
        first_voxel_mm=sampling.voxel_mm,
        finest_voxel_mm=sampling.voxel_mm,
        coarsest_voxel_mm=sampling.voxel_mm,
    )
