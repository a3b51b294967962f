"""Training of the networks for volumes."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from clickvol.datasets.by_case.published_samples import draw_published_sample
from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_files import ScanFiles
from clickvol.datasets.device.scan_store import ScanStore, ScanTable
from clickvol.datasets.device.stored_scan import StoredScan, unpacked
from clickvol.datasets.loader import CaseSampler, Sampler, refuse_nothing
from clickvol.datasets.samples import LabelledVolume, PatchBatch, joined
from clickvol.datasets.sampling import (
    PatchSampling,
    PublishedSampling,
    SliceSampling,
    VolumeSampling,
    WindowSampling,
)
from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d
from clickvol.methods.freezing import freeze_foundation
from clickvol.methods.lift import lift_foundation
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.recipe import BoundaryTerm, LossRecipe, Recipe
from clickvol.methods.registry import find_method, find_recipe
from clickvol.methods.sam2d import Sam2d
from clickvol.methods.tags import with_text_width
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.training.config import BoundarySection, TrainConfig
from clickvol.training.memory import bytes_of_step, free_bytes
from clickvol.training.tasks.step import TrainingStep
from clickvol.training.tasks.tags_inputs import load_text_bank, organ_source, tags_notes
from clickvol.training.tasks.task import Step, Task
from clickvol.weights.card import FieldOfViewPlan
from clickvol.weights.device import choose_device
from clickvol.weights.load import load_network

_log = logging.getLogger("clickvol.training")

_PHANTOMS = "phantom"

# Part of the free memory that a step may take before blocks are computed again; chosen.
_SHARE_OF_MEMORY = 0.8


class VolumeTask(Task[PatchBatch]):
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
        self.notes = tuple(tags_notes(config, bank, self.organs))

    def build_network(self) -> nn.Module:
        """Return the network, with the foundation lifted into it where one is named."""
        network = find_method(self._config.model.method).build(self._recipe.network)
        if isinstance(network, LiftedSegmenter):
            _prepare_encoder(network, self._config)
        return network

    def make_step(self, network: nn.Module) -> Step:
        """Return clicks, network and loss in one."""
        if not isinstance(network, VolumeSegmenter):
            raise ConfigError(
                f"{self._config.model.method} is no method for volumes; choose another model.method"
            )
        run, inputs = self._config.run, (self._recipe, self._sampling)
        return TrainingStep(network, *inputs, run.seed, self._text, compiled=run.compiled)

    def num_items(self, cases: Sequence[LabelledVolume | StoredScan]) -> int:
        """Return the number of scans."""
        return len(cases)

    def sampler(
        self,
        cases: Sequence[LabelledVolume | StoredScan],
        phantoms: Sequence[LabelledVolume],
        device: torch.device,
    ) -> Sampler[PatchBatch]:
        """Return what makes patches as the configuration says."""
        refuse_nothing(cases, phantoms)
        share = self._config.data.phantom_share
        sampling = self._sampling
        volumes = unpacked(cases)
        if isinstance(sampling, PublishedSampling):
            return CaseSampler(
                volumes,
                phantoms,
                phantom_share=share,
                draw=partial(self._published, sampling),
                join=joined,
                seed=self._config.run.seed,
                in_epochs=sampling.order == "epochs",
            )
        packed = [case for case in cases if isinstance(case, StoredScan)]
        groups = [str(case.volume.modality) for case in volumes] + [_PHANTOMS] * len(phantoms)
        volumes += phantoms
        if packed:
            named = enumerate(zip(volumes, groups, strict=True))
            packed += [StoredScan.of(case, f"{n:06d}", group) for n, (case, group) in named]
            store: ScanTable = ScanStore.of(packed, device)
        else:
            num_voxels = sum(math.prod(case.volume.grid.shape_dhw) for case in volumes)
            stays = num_voxels <= self._config.data.voxels_in_memory
            store = ScanFiles.of(volumes, groups, device, stays=stays)
        return self._patches(store, sampling, _group_shares(sampling, store.groups, share))

    def plain_batches(
        self, cases: Sequence[LabelledVolume | StoredScan], count: int, device: torch.device
    ) -> Iterator[PatchBatch]:
        """Yield patches of every object without augmentation."""
        if isinstance(self._sampling, PublishedSampling):
            plain = self._sampling.without_changes()
            for number, case in enumerate(unpacked(cases)):
                rng = np.random.default_rng([self._config.run.seed, number, 3])
                yield joined([self._published(plain, case, rng) for _ in range(count)])
            return
        stored = [case for case in cases if isinstance(case, StoredScan)]
        store = (
            ScanStore.of(stored, device)
            if stored
            else ScanFiles.of(unpacked(cases), ["all"] * len(cases), device)
        )
        sampler = self._patches(store, self._sampling.without_changes(), dict.fromkeys(store.groups, 1.0))
        for number in range(len(store.objects.scan)):
            yield sampler.batch(range(number * count, (number + 1) * count), [number] * count)

    def _patches(
        self, store: ScanTable, sampling: PatchSampling | WindowSampling, shares: dict[str, float]
    ) -> PatchSampler:
        network = self._recipe.network
        return PatchSampler(
            store,
            sampling,
            network.patch_shape_dhw,
            self._config.run.seed,
            num_channels=network.num_channels,
            with_hints=isinstance(network, LiftedSegmenterConfig) and network.num_hints > 0,
            group_shares=shares,
        )

    def _published(
        self, sampling: PublishedSampling, case: LabelledVolume, rng: np.random.Generator
    ) -> PatchBatch:
        network = self._recipe.network
        channels = network.num_channels
        return draw_published_sample(case, network.patch_shape_dhw, sampling, rng, num_channels=channels)


def _group_shares(
    sampling: PatchSampling | WindowSampling, groups: Sequence[str], phantom_share: float
) -> dict[str, float]:
    """Return how often each group is drawn: the modalities as said, or alike, and phantoms with their share."""
    wanted = sampling.group_shares if isinstance(sampling, PatchSampling) else {}
    real = {name: wanted.get(name, 0.0) if wanted else 1.0 for name in groups if name != _PHANTOMS}
    if not real:
        return {_PHANTOMS: 1.0}
    total = sum(real.values())
    if total <= 0:
        raise ConfigError(f"sampling.group_shares names none of {', '.join(real)}; give one a share above 0")
    share = phantom_share if _PHANTOMS in groups else 0.0
    return {name: value / total * (1 - share) for name, value in real.items()} | {_PHANTOMS: share}


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
    recipe = replace(recipe, loss=_loss(recipe.loss, config.loss.boundary))
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


def _loss(loss: LossRecipe, boundary: BoundarySection | None) -> LossRecipe:
    """Return the preset's loss with the boundary loss that is asked for; ConfigError for a contradiction."""
    if boundary is None:
        return loss
    term = replace(loss.boundary or BoundaryTerm(), **boundary.model_dump(exclude_none=True))
    return replace(loss, boundary=term if term.weight else None)


def _check(config: TrainConfig, recipe: Recipe, kind: str) -> None:
    """Refuse what cannot go together; ConfigError with both values and what to change."""
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
    if not _recomputes(network, config):
        return
    if not isinstance(network.image_encoder, LiftedVit3d):
        raise ConfigError("run.recompute_blocks is for the sizes with SAM's blocks; set it to false")
    network.image_encoder.checkpoint_blocks = True


def _recomputes(network: LiftedSegmenter, config: TrainConfig) -> bool:
    """Tell whether blocks are computed again; "auto" looks at the memory and says what it decides."""
    if config.run.recompute_blocks != "auto":
        return config.run.recompute_blocks
    needed = bytes_of_step(network.config, config.optimiser.batch_size)
    free = free_bytes(choose_device(config.run.device))
    if needed <= _SHARE_OF_MEMORY * free:
        return False
    _log.warning(
        "a step would take about %.1f GiB and %.1f are free: the encoder's blocks are computed again for the "
        "gradient, which takes a third more time (run.recompute_blocks)",
        needed / 2**30,
        free / 2**30,
    )
    return True


def _fields_of_view(sampling: VolumeSampling) -> FieldOfViewPlan:
    """Return the views that the model is trained for."""
    if isinstance(sampling, PatchSampling):
        return FieldOfViewPlan(
            first_voxel_mm=sampling.first_voxel_mm,
            finest_voxel_mm=sampling.finest_voxel_mm,
            coarsest_voxel_mm=sampling.coarsest_voxel_mm,
            # The mean of what is drawn evenly between none and the most.
            click_off_middle=sampling.max_shift / 2 if sampling.fitted_around == "click" else 0.0,
        )
    return FieldOfViewPlan(
        first_voxel_mm=sampling.voxel_mm,
        finest_voxel_mm=sampling.voxel_mm,
        coarsest_voxel_mm=sampling.voxel_mm,
    )
