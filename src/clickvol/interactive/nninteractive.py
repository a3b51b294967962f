"""The method names of nnInteractive's inference session, so that scripts written for it run on our models.

Names and argument order are those of its documentation; nothing of its code or weights is here. How a model
uses a box, a scribble, a lasso or an initial segmentation says `predict/placed_prompts.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError, ConfigError
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.interactions import PromptInteraction, check_on_grid
from clickvol.interactive.viewer_prompts import box_prompt, drawn_prompt, point_prompt
from clickvol.io.volume import Modality, Volume
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.prompts.packed_mask import EMPTY, PackedMask, changed_box
from clickvol.prompts.spatial import GivenMask, Prompt
from clickvol.weights.load import LoadedModel, load_model

Ranges = list[list[int]]
"""Half-open ranges of voxels, [[x1, x2], [y1, y2], [z1, z2]]."""

_THEIR_OPTIONS = {"use_torch_compile", "verbose", "torch_n_threads", "do_autozoom", "use_pinned_memory"}


def voxel_lengths_mm(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Return the lengths of voxels along three axes, without signs.

    napari gives an axis of a NIfTI file that runs against the world's a negative scale.

    Raises:
        ConfigError: when they are not three lengths other than 0.
    """
    if len(spacing_mm) != 3 or not all(np.isfinite(s) and s for s in spacing_mm):
        raise ConfigError(f"the spacing is {tuple(spacing_mm)}; give three lengths in mm, none of them 0")
    x, y, z = (abs(float(s)) for s in spacing_mm)
    return x, y, z


class nnInteractiveInferenceSession:  # the name that scripts import
    """One scan and one object at a time; axes are those of the array that is given.

    Args:
        model: that answers; None takes the one of `initialize_from_trained_model_folder`, or the default.
        device: "auto", "cpu", "cuda" or a torch device, for a model that is loaded here.
        theirs: what else nnInteractive's constructor takes (`use_torch_compile`, `verbose`, `torch_n_threads`,
            `do_autozoom`, `use_pinned_memory`); it changes nothing here.

    Attributes:
        preferred_scribble_thickness: of strokes, in voxels of each axis; any other is taken as well.
    """

    preferred_scribble_thickness = (2, 2, 2)

    def __init__(self, model: LoadedModel | None = None, *, device: object = "auto", **theirs: object) -> None:
        unknown = sorted(theirs.keys() - _THEIR_OPTIONS)
        if unknown:
            raise ConfigError(f"there is no option {unknown[0]}; they are {', '.join(sorted(_THEIR_OPTIONS))}")
        self._model = model
        self._device = str(device)
        self._scan: ScanPredictor | None = None
        self._target: Any = None
        # What waits for the next prediction.
        self._waiting: list[Prompt] = []
        # All prompts of each prediction, and its mask; undo takes back the last.
        self._predictions: list[tuple[list[Prompt], PackedMask]] = []

    def initialize_from_trained_model_folder(self, model_training_output_dir: str | Path) -> None:
        """Load one of our models by id or path; ModelNotFoundError when there is none."""
        self._model = load_model(model_training_output_dir, device=self._device)
        self._scan = None

    def set_image(
        self,
        image: NDArray[np.generic],
        image_properties: Mapping[str, Any] | None = None,
        *,
        spacing_mm: Sequence[float] | None = None,
        modality: Modality | None = None,
    ) -> None:
        """Take a scan.

        Args:
            image: (1, X, Y, Z), any real dtype, CT in Hounsfield units; as nnU-Net's readers give it,
                whose axes run to superior, posterior and left.
            image_properties: its "spacing" is that of the last three axes, in their order; signs do not count.
            spacing_mm: the same; 1 mm where neither is given.
            modality: "CT" or "MR"; recognised when not given.

        Raises:
            ConfigError: for another shape or spacing.
        """
        image = np.asarray(image)
        if image.ndim != 4 or image.shape[0] != 1 or 0 in image.shape:
            raise ConfigError(f"the image has shape {image.shape}; one channel is expected, (1, X, Y, Z)")
        if spacing_mm is None:
            spacing_mm = tuple((image_properties or {}).get("spacing", (1.0, 1.0, 1.0)))
        # As nnU-Net's readers have it: axes z, y, x of a file in LPS.
        grid = VolumeGrid.axial(image.shape[1:], voxel_lengths_mm(spacing_mm))
        self._model = self._model or load_model(device=self._device)
        volume = Volume(image[0], grid, modality or "unknown")
        self._scan = ScanPredictor(volume, self._model, modality=modality)
        self._waiting, self._predictions = [], []

    def set_target_buffer(self, target_buffer: NDArray[np.generic] | Any) -> None:  # noqa: ANN401
        """Take an array or tensor (X, Y, Z) of the image's shape, into which masks are written as 0 and 1."""
        shape = self._opened().volume.grid.shape_dhw
        if tuple(target_buffer.shape) != shape:
            raise ConfigError(
                f"the target buffer has shape {tuple(target_buffer.shape)}; the image has {shape}"
            )
        self._target = target_buffer

    @property
    def target_buffer(self) -> Any:  # noqa: ANN401
        """The array that masks are written into; None before `set_target_buffer`."""
        return self._target

    def set_do_autozoom(self, do_autozoom: bool) -> None:
        """Do nothing: fields of view always follow the object."""

    def add_point_interaction(
        self, coordinates: Sequence[float], include_interaction: bool, run_prediction: bool = True
    ) -> Ranges | None:
        """Click.

        Args:
            coordinates: (x, y, z), voxel indices of the image; rounded.
            include_interaction: inside the object; False where it is not.
            run_prediction: False keeps the click for the next prediction.

        Returns:
            Around the voxels that have changed; None where none has. Without anything inside the object yet,
            what is outside waits.

        Raises:
            ClickError: for a click outside the image.
        """
        if len(coordinates) != 3:
            raise ClickError(f"a point has three coordinates, not {len(coordinates)}; give (x, y, z)")
        return self._add(point_prompt(coordinates, positive=include_interaction), run_prediction)

    def add_bbox_interaction(
        self, bbox_coords: Sequence[Sequence[int]], include_interaction: bool, run_prediction: bool = True
    ) -> Ranges | None:
        """Draw a box [[x1, x2], [y1, y2], [z1, z2]], half-open; ClickError when empty. Else as a point."""
        if len(bbox_coords) != 3 or any(len(ends) != 2 or ends[0] >= ends[1] for ends in bbox_coords):
            raise ClickError(f"the box {bbox_coords} is empty; give [[x1, x2], [y1, y2], [z1, z2]], half-open")
        low, high = np.array(bbox_coords).T
        return self._add(box_prompt(low, high - 1, positive=include_interaction), run_prediction)

    def add_scribble_interaction(
        self,
        scribble_image: NDArray[np.generic],
        include_interaction: bool,
        run_prediction: bool = True,
        interaction_bbox: Sequence[Sequence[int]] | None = None,
    ) -> Ranges | None:
        """Draw strokes; ClickError when empty or they do not fit. Otherwise as `add_point_interaction`.

        The image is (X, Y, Z), or smaller and then of the shape of `interaction_bbox`, half-open ranges that
        say where it lies; drawn where it is above 0.
        """
        return self._draw("scribble", scribble_image, interaction_bbox, include_interaction, run_prediction)

    def add_lasso_interaction(
        self,
        lasso_image: NDArray[np.generic],
        include_interaction: bool,
        run_prediction: bool = True,
        interaction_bbox: Sequence[Sequence[int]] | None = None,
    ) -> Ranges | None:
        """Draw around something; arguments, result and errors as of `add_scribble_interaction`."""
        return self._draw("lasso", lasso_image, interaction_bbox, include_interaction, run_prediction)

    def add_initial_seg_interaction(
        self,
        initial_seg: NDArray[np.generic],
        run_prediction: bool = False,  # noqa: ARG002
    ) -> Ranges | None:
        """Forget all interactions and begin with a mask (X, Y, Z), which what follows corrects.

        Returns:
            Around the voxels that have changed; a mask alone is its own answer.

        Raises:
            ClickError: when its shape is not that of the image.
        """
        shape = self._opened().volume.grid.shape_dhw
        if np.shape(initial_seg) != shape:
            raise ClickError(f"the segmentation has shape {np.shape(initial_seg)}; the image has {shape}")
        before, mask = self._shown, PackedMask.of(np.asarray(initial_seg) > 0)
        self._waiting = []
        self._predictions = [([GivenMask(mask)], mask)] if mask.num_voxels else []
        return self._changed_since(before)

    def undo(self) -> bool:
        """Take back the last interaction; unlimited. False where there is none."""
        self._opened()
        if not self._waiting and not self._predictions:
            return False
        (self._waiting or self._predictions).pop()
        self._write_target()
        return True

    def reset_interactions(self) -> None:
        """Begin with another object: forget all clicks, and empty the target buffer."""
        self._opened()
        self._waiting, self._predictions = [], []
        self._write_target()

    def _predict(self) -> Ranges | None:
        scan, before = self._opened(), self._shown
        known = self._predictions[-1][0] if self._predictions else []
        prompts = [*known, *sorted(self._waiting, key=lambda prompt: not prompt.foreground)]
        if self._waiting and any(prompt.foreground for prompt in prompts):
            answer = scan.predict(prompts)
            mask = PackedMask.of(answer.mask.array, within=answer.probability_box)
            self._predictions.append((prompts, mask))
            self._waiting = []
        return self._changed_since(before)

    def _add(self, interaction: PromptInteraction, run_now: bool) -> Ranges | None:
        check_on_grid(interaction, self._opened().volume.grid)
        waiting = self._waiting
        self._waiting = [*waiting, interaction.prompt]
        try:
            return self._predict() if run_now else None
        except BaseException:
            self._waiting = waiting
            raise

    def _draw(
        self,
        kind: Literal["scribble", "lasso"],
        image: NDArray[np.generic],
        box: Sequence[Sequence[int]] | None,
        include: bool,
        run_now: bool,
    ) -> Ranges | None:
        shape = self._opened().volume.grid.shape_dhw
        start = [0, 0, 0] if box is None else [int(first) for first, _ in box]
        stop = list(shape) if box is None else [int(last) for _, last in box]
        if np.shape(image) != tuple(np.subtract(stop, start)):
            raise ClickError(f"a drawing of shape {np.shape(image)} cannot be used; draw in {start} to {stop}")
        return self._add(drawn_prompt(kind, image, start, positive=include), run_now)

    @property
    def _shown(self) -> PackedMask:
        return self._predictions[-1][1] if self._predictions else EMPTY

    def _changed_since(self, before: PackedMask) -> Ranges | None:
        self._write_target()
        box = changed_box(before, self._shown)
        return None if box is None else [list(p) for p in zip(box.start_dhw, box.stop_dhw, strict=True)]

    def _opened(self) -> ScanPredictor:
        if self._scan is None:
            raise ConfigError("there is no image; call set_image first")
        return self._scan

    def _write_target(self) -> None:
        if self._target is not None:
            mask = self._shown.full(self._opened().volume.grid.shape_dhw).astype(np.uint8)
            if isinstance(self._target, np.ndarray):
                self._target[...] = mask
            else:
                import torch

                self._target.copy_(torch.from_numpy(mask))
