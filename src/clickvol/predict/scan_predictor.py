"""The interactive use: one scan and one model; clicks in, the segmented object out."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import CancelledError, ClickError, ConfigError, DamagedWeightsError
from clickvol.geometry.box import VoxelBox, bounding_box
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.in_memory import MaskLike, VolumeLike
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.methods.lifted_segmenter import LiftedSegmenterConfig
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.candidate_masks import with_candidates
from clickvol.predict.click_checks import clicks_in_air, warnings_at_border, warnings_of_size
from clickvol.predict.correction import corrected_near_clicks
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.patch_predictor import PatchPredictor
from clickvol.predict.placed_prompts import PlacedPrompts, PromptUse
from clickvol.predict.published_window import predict_published
from clickvol.predict.segmentation import (
    THRESHOLD,
    Array32,
    Procedure,
    ScanProbability,
    Segmentation,
    Stopwatch,
    keep_clicked,
)
from clickvol.predict.sliding_window import slide_over_scan
from clickvol.predict.zoom_refinement import zoom_to_object
from clickvol.prompts.click import Click
from clickvol.prompts.spatial import NUM_HINTS, Prompt, check_any_prompt_inside
from clickvol.weights.card import FieldOfViewPlan, ModelCard
from clickvol.weights.load import LoadedModel, load_model

# A field of view takes 8 MB with the shipped model and some 300 MB with a ViT-B; an answer needs up to 16.
FEATURE_MEMORY_MB = 1024.0
"""Memory for encoded fields of view where nobody says another."""


def never() -> bool:
    """Tell that nobody has cancelled."""
    return False


class ScanPredictor:
    """Segments what is clicked in one scan; image features are computed once per field of view.

    A segmentation depends on the scan, the model and the arguments of `predict` alone, not on earlier calls.

    Args:
        modality: "CT" or "MR" where the file does not say it or says it wrongly.
        organ_mask: for a model that takes one (TAGS), on any grid that lies over the scan; values above 0
            are organ.
        feature_memory_mb: memory for features (10^6 bytes); the ones used last are kept.
        procedure: "published" computes one window per list of clicks, as the papers' test code does, and keeps
            no features.

    Raises:
        ConfigError: when an organ mask is given to a model that takes none, or lies nowhere in the scan; or
            when the model takes no clicks.
    """

    def __init__(
        self,
        volume: VolumeLike,
        model: LoadedModel,
        *,
        modality: Modality | None = None,
        organ_mask: MaskLike | None = None,
        feature_memory_mb: float = FEATURE_MEMORY_MB,
        procedure: Procedure = "clickvol",
    ) -> None:
        if model.network.config.is_automatic:
            raise ConfigError(f"{model.card.id} is automatic and takes no clicks; use segment() with it")
        stopwatch = Stopwatch()
        with stopwatch.stage("prepare"):
            self._scan = NormalisedScan.of(volume, model, modality=modality, organ_mask=organ_mask)
        self._prepare_seconds = stopwatch.seconds
        self._procedure: Procedure = procedure
        self._patches = PatchPredictor(self._scan, model, max_bytes=int(feature_memory_mb * 1e6))

    @property
    def volume(self) -> Volume:
        """The scan."""
        return self._scan.volume

    @property
    def feature_bytes(self) -> int:
        """Memory of the features that are kept."""
        return self._patches.num_bytes

    def predict(
        self,
        prompts: Sequence[Prompt],
        *,
        exclude_mask: NDArray[np.bool_] | None = None,
        background_clicks: Sequence[Click] = (),
        cancelled: Callable[[], bool] = never,
    ) -> Segmentation:
        """Return the object that the prompts point at.

        Args:
            prompts: clicks, lines, boxes, scribbles, lassos, given masks; at least one on the object. A given
                mask alone is the answer; with others it is corrected near them.
            exclude_mask: (D, H, W), voxels of other objects, which the mask leaves out; None for none.
            background_clicks: further ones, which the segmentation does not list.
            cancelled: called before every call of the network; True ends the prediction.

        Raises:
            ClickError: when a prompt is not finite, empty or outside the scan, or none is on the object.
            CancelledError: when `cancelled` said so.
        """
        grid, model = self.volume.grid, self._patches.model
        config, shown = model.network.config, (*prompts, *background_clicks)
        knows_hints = isinstance(config, LiftedSegmenterConfig) and config.num_hints == NUM_HINTS
        placed = PlacedPrompts.of(shown, grid, knows_hints=knows_hints, excluded=exclude_mask)
        stopwatch = Stopwatch(dict(self._prepare_seconds))
        given = None if placed.given is None else placed.given.full(grid.shape_dhw)

        def predict_patch(field_of_view: FieldOfView, prior: Array32 | None) -> Array32:
            if cancelled():
                raise CancelledError("the click was cancelled before its mask was ready; click again")
            return self._patches.probability(field_of_view, placed, stopwatch, prior=prior)

        with stopwatch.stage("paste"):
            plan = _plan_of(model.card)
            if given is not None and not placed.clicks:
                result = ScanProbability(VoxelBox.whole(grid.shape_dhw), given.astype(np.float32), ())
                result = replace(result, keeps_all_parts=True)
            elif self._procedure == "published":
                result = predict_published(self._scan, model, placed.clicks, plan.first_voxel_mm, stopwatch)
            elif in_air := clicks_in_air(self._scan, placed.inside):
                result = _nothing(in_air[0], grid)
            else:
                result = zoom_to_object(
                    predict_patch, grid, placed.inside, plan, config.patch_shape_dhw, placed.extent
                )
                if given is not None:
                    result = corrected_near_clicks(given, result, placed.clicks, grid)
            if placed.excluded is not None:
                result.probability[placed.excluded[result.box.slices]] = 0
        result = replace(result, warnings=(*placed.warnings(model.card.id), *result.warnings))
        used = placed.used[: len(prompts)]
        segmentation = _segmentation(
            self._scan, model.card, prompts, placed.inside, used, result, stopwatch, self._procedure
        )
        if result.judged_field is None or given is not None:
            return segmentation
        several = self._patches.candidates(stopwatch)
        return with_candidates(segmentation, several, result.judged_field, placed.inside, model.card)


def segment(
    volume: VolumeLike,
    prompts: Sequence[Prompt],
    model: LoadedModel | None = None,
    *,
    modality: Modality | None = None,
    organ_mask: MaskLike | None = None,
    procedure: Procedure = "clickvol",
) -> Segmentation:
    """Segment the object that was pointed at; with an automatic model, whatever it was trained for.

    Args:
        volume: the scan, from `read_volume`; or an image of nibabel or SimpleITK, or a MetaTensor of MONAI.
        prompts: clicks, lines, boxes, scribbles, lassos and given masks, at least one on the object; others,
            on it or on the background, refine the mask. None are needed for an automatic model; clicks
            inside choose the connected parts of its mask that are kept, and it takes no other prompts.
        model: from `load_model`; None loads the default one (load it once for many scans).
        modality: "CT" or "MR" where the file does not say it or says it wrongly.
        organ_mask: for a model that takes one (TAGS), on any grid that lies over the scan; values above 0
            are organ. Without it such a model sees the scan in its place, and the result has a warning.
        procedure: "published" for the papers' one window around the clicks; an automatic model is slid over the
            scan in any case.

    Raises:
        ClickError: for a click that is not finite or outside the scan, or without any click inside.
        ConfigError: when an organ mask is given to a model that takes none, or lies nowhere in the scan.
        DamagedWeightsError: when the model's card has no voxel sizes.
    """
    loaded = model or load_model()
    if not loaded.network.config.is_automatic:
        predictor = ScanPredictor(volume, loaded, modality=modality, organ_mask=organ_mask, procedure=procedure)
        return predictor.predict(prompts)
    clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
    if len(clicks) < len(prompts):
        raise ClickError(f"{loaded.card.id} is automatic and takes clicks alone; leave out the other prompts")
    inside = [click.world(volume.grid) for click in clicks if click.foreground]
    if clicks:
        check_any_prompt_inside(clicks)
    stopwatch = Stopwatch()
    with stopwatch.stage("prepare"):
        scan = NormalisedScan.of(volume, loaded, modality=modality, organ_mask=organ_mask)
    result = slide_over_scan(scan, loaded, _plan_of(loaded.card).first_voxel_mm, stopwatch)
    if len(inside) < len(clicks):
        ignored = f"{loaded.card.id} takes no clicks; those on the background were ignored"
        result = replace(result, warnings=(ignored,))
    return _segmentation(scan, loaded.card, clicks, inside, (), result, stopwatch, "clickvol")


def _nothing(click: WorldPointRAS, grid: VolumeGrid) -> ScanProbability:
    """Return an empty result for a click in air."""
    ijk = ", ".join(f"{v:.0f}" for v in grid.to_voxel(click).to_ijk())
    warning = f"there is nothing but air around the click at voxel ({ijk}); nothing was segmented; click inside"
    return ScanProbability(VoxelBox.whole((1, 1, 1)), np.zeros((1, 1, 1), np.float32), (), (warning,))


def _plan_of(card: ModelCard) -> FieldOfViewPlan:
    if card.fields_of_view is None:
        raise DamagedWeightsError(f"the card of {card.id} has no `fields_of_view`; import the model again")
    return card.fields_of_view


def _segmentation(
    scan: NormalisedScan,
    card: ModelCard,
    prompts: Sequence[Prompt],
    inside: Sequence[WorldPointRAS],
    used: tuple[PromptUse, ...],
    result: ScanProbability,
    stopwatch: Stopwatch,
    procedure: Procedure,
) -> Segmentation:
    """Keep the parts above the threshold that hold a place inside; all of them without a prompt."""
    with stopwatch.stage("paste"):
        grid, start = scan.volume.grid, np.array(result.box.start_dhw)
        kept_by = () if result.keeps_all_parts else inside
        places = [grid.to_voxel(place).as_array() - start for place in kept_by]
        array = np.zeros(grid.shape_dhw, dtype=np.uint8)
        kept = keep_clicked(result.probability > THRESHOLD, places)
        own = bounding_box(kept)
        if own is not None:
            # Memory of the whole scan that nobody writes to costs no time.
            array[result.box.slices][own.slices] = kept[own.slices]
            own = own.shift(result.box.start_dhw)
        at_border = warnings_at_border(own, grid)
    return Segmentation(
        mask=Mask(array, grid),
        prompts=tuple(prompts),
        modality=scan.modality,
        model_id=card.id,
        procedure=procedure,
        fields_of_view=result.views,
        seconds=stopwatch.seconds,
        prompts_used=used,
        warnings=(*scan.warnings, *result.warnings, *warnings_of_size(int(np.count_nonzero(kept))), *at_border),
        probability_box=result.box,
        probability_in_box=result.probability,
    )
