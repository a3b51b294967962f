"""The interactive use: one scan and one model; clicks in, the segmented object out."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import CancelledError, ConfigError, DamagedWeightsError
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.patches.field_of_view import FieldOfView
from clickvol.predict.normalised_scan import NormalisedScan
from clickvol.predict.patch_predictor import PatchPredictor, WorldClick
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
from clickvol.prompts.click import Click, check_any_inside
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
        volume: the scan.
        model: the model.
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
        volume: Volume,
        model: LoadedModel,
        *,
        modality: Modality | None = None,
        organ_mask: Mask | Volume | None = None,
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
        clicks: Sequence[Click],
        *,
        exclude_mask: NDArray[np.bool_] | None = None,
        background_clicks: Sequence[Click] = (),
        cancelled: Callable[[], bool] = never,
    ) -> Segmentation:
        """Return the object that was clicked.

        Args:
            clicks: at least one inside the object.
            exclude_mask: (D, H, W), voxels of other objects, which the mask leaves out; None for none.
            background_clicks: further ones, which the segmentation does not list.
            cancelled: called before every call of the network; True ends the prediction.

        Raises:
            ClickError: when a click is not finite or outside the scan, or there is none inside the object.
            CancelledError: when `cancelled` said so.
        """
        grid, model = self.volume.grid, self._patches.model
        placed = [WorldClick(c.world(grid), c.foreground) for c in (*clicks, *background_clicks)]
        check_any_inside(clicks)
        stopwatch = Stopwatch(dict(self._prepare_seconds))

        def predict_patch(field_of_view: FieldOfView, prior: Array32 | None = None) -> Array32:
            if cancelled():
                raise CancelledError("the click was cancelled before its mask was ready; click again")
            return self._patches.probability(
                field_of_view, placed, stopwatch, prior=prior, exclude_mask=exclude_mask
            )

        with stopwatch.stage("paste"):
            plan = _plan_of(model.card)
            if self._procedure == "published":
                result = predict_published(self._scan, model, placed, plan.first_voxel_mm, stopwatch)
            else:
                inside = [click.place for click in placed if click.foreground]
                shape = model.network.config.patch_shape_dhw
                result = zoom_to_object(predict_patch, grid, inside, plan, shape)
            if exclude_mask is not None:
                result.probability[exclude_mask[result.box.slices]] = 0
        return _segmentation(self._scan, model.card, clicks, result, stopwatch, self._procedure)


def segment(
    volume: Volume,
    clicks: Sequence[Click],
    model: LoadedModel | None = None,
    *,
    modality: Modality | None = None,
    organ_mask: Mask | Volume | None = None,
    procedure: Procedure = "clickvol",
) -> Segmentation:
    """Segment the clicked object; with an automatic model, whatever it was trained for.

    Args:
        volume: the scan, from `read_volume`.
        clicks: at least one inside the object; others, inside or on the background, refine the mask. None are
            needed for an automatic model; those inside choose the connected parts of its mask that are kept.
        model: from `load_model`; None loads the default one (load it once for many scans).
        modality: "CT" or "MR" where the file does not say it or says it wrongly.
        organ_mask: for a model that takes one (TAGS), on any grid that lies over the scan; values above 0
            are organ. Without it such a model sees the scan in its place, and the result has a warning.
        procedure: "published" for the papers' one window around the clicks; an automatic model is slid over the
            scan in any case.

    Returns:
        The mask on the scan's grid, probabilities, and how they came about.

    Raises:
        ClickError: for a click that is not finite or outside the scan, or without any click inside.
        ConfigError: when an organ mask is given to a model that takes none, or lies nowhere in the scan.
        DamagedWeightsError: when the model's card has no voxel sizes.
    """
    loaded = model or load_model()
    if not loaded.network.config.is_automatic:
        predictor = ScanPredictor(volume, loaded, modality=modality, organ_mask=organ_mask, procedure=procedure)
        return predictor.predict(clicks)
    for click in clicks:
        click.world(volume.grid)
    if clicks:
        check_any_inside(clicks)
    stopwatch = Stopwatch()
    with stopwatch.stage("prepare"):
        scan = NormalisedScan.of(volume, loaded, modality=modality, organ_mask=organ_mask)
    result = slide_over_scan(scan, loaded, _plan_of(loaded.card).first_voxel_mm, stopwatch)
    if not all(click.foreground for click in clicks):
        ignored = f"{loaded.card.id} takes no clicks; those on the background were ignored"
        result = replace(result, warnings=(ignored,))
    return _segmentation(scan, loaded.card, clicks, result, stopwatch, "clickvol")


def _plan_of(card: ModelCard) -> FieldOfViewPlan:
    if card.fields_of_view is None:
        raise DamagedWeightsError(f"the card of {card.id} has no `fields_of_view`; import the model again")
    return card.fields_of_view


def _segmentation(
    scan: NormalisedScan,
    card: ModelCard,
    clicks: Sequence[Click],
    result: ScanProbability,
    stopwatch: Stopwatch,
    procedure: Procedure,
) -> Segmentation:
    """Keep the parts above the threshold that are clicked inside; all of them without a click."""
    with stopwatch.stage("paste"):
        grid, start = scan.volume.grid, np.array(result.box.start_dhw)
        kept_by = () if result.keeps_all_parts else clicks
        inside = [grid.to_voxel(c.world(grid)).as_array() - start for c in kept_by if c.foreground]
        array = np.zeros(grid.shape_dhw, dtype=np.uint8)
        array[result.box.slices] = keep_clicked(result.probability > THRESHOLD, inside)
    return Segmentation(
        mask=Mask(array, grid),
        clicks=tuple(clicks),
        modality=scan.modality,
        model_id=card.id,
        procedure=procedure,
        fields_of_view=result.views,
        seconds=stopwatch.seconds,
        warnings=(*scan.warnings, *result.warnings),
        probability_box=result.box,
        probability_in_box=result.probability,
    )
