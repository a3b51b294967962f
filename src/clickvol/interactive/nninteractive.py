"""The method names of nnInteractive's inference session, so that scripts written for it run on our models.

Names and argument order are those of its documentation; nothing of its code or weights is here. Our models
take clicks: a box or a lasso stands for the click at its middle, a scribble for a few clicks along it, and an
initial segmentation is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.errors import ClickError, ConfigError
from clickvol.geometry.box import bounding_box
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Modality, Volume
from clickvol.predict.scan_predictor import ScanPredictor
from clickvol.prompts.click import Click
from clickvol.prompts.packed_mask import PackedMask
from clickvol.weights.load import LoadedModel, load_model

# Clicks that stand for a scribble. Chosen: the models were trained with up to five clicks.
_MAX_SCRIBBLE_CLICKS = 4


class nnInteractiveInferenceSession:  # the name that scripts import
    """One scan and one object at a time; axes are those of the array that is given.

    Args:
        model: that answers; None takes the one of `initialize_from_trained_model_folder`, or the default.
        device: "auto", "cpu", "cuda" or a torch device, for a model that is loaded here.
    """

    def __init__(self, model: LoadedModel | None = None, *, device: object = "auto") -> None:
        self._model = model
        self._device = str(device)
        self._scan: ScanPredictor | None = None
        self._target: Any = None
        # Clicks of each interaction that waits for the next prediction.
        self._waiting: list[list[Click]] = []
        # All clicks of each prediction, and its mask; undo takes back the last.
        self._predictions: list[tuple[list[Click], PackedMask]] = []

    def initialize_from_trained_model_folder(self, model_training_output_dir: str | Path) -> None:
        """Load one of our models by id or path.

        Raises:
            ModelNotFoundError: when there is none.
        """
        self._model = load_model(model_training_output_dir, device=self._device)
        self._scan = None

    def set_image(
        self,
        image: NDArray[np.generic],
        *,
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        modality: Modality | None = None,
    ) -> None:
        """Take a scan.

        Args:
            image: (1, X, Y, Z), any real dtype, CT in Hounsfield units; as nnU-Net's readers give it,
                whose axes run to superior, posterior and left.
            spacing_mm: of the last three axes, in their order.
            modality: "CT" or "MR"; recognised when not given.

        Raises:
            ConfigError: for another shape or spacing.
        """
        image = np.asarray(image)
        if image.ndim != 4 or image.shape[0] != 1 or 0 in image.shape:
            raise ConfigError(f"the image has shape {image.shape}; one channel is expected, (1, X, Y, Z)")
        if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
            raise ConfigError(f"spacing_mm is {tuple(spacing_mm)}; give three lengths above 0")
        x, y, z = spacing_mm
        # As nnU-Net's readers have it: axes z, y, x of a file in LPS.
        grid = VolumeGrid.axial(image.shape[1:], (x, y, z))
        self._model = self._model or load_model(device=self._device)
        volume = Volume(image[0], grid, modality or "unknown")
        self._scan = ScanPredictor(volume, self._model, modality=modality)
        self._waiting, self._predictions = [], []

    def set_target_buffer(self, target_buffer: NDArray[np.generic] | Any) -> None:  # noqa: ANN401
        """Take an array or tensor (X, Y, Z), into which every mask is written as 0 and 1.

        Raises:
            ConfigError: when its shape is not that of the image.
        """
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

    def add_point_interaction(
        self,
        coordinates: Sequence[float],
        include_interaction: bool,  # noqa: FBT001
        run_prediction: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Click.

        Args:
            coordinates: (x, y, z), voxel indices of the image.
            include_interaction: inside the object; False where it is not.
            run_prediction: False keeps the click for the next prediction.

        Raises:
            ClickError: for a click outside the image, or when there is none inside the object yet.
        """
        if len(coordinates) != 3:
            raise ClickError(f"a point has three coordinates, not {len(coordinates)}; give (x, y, z)")
        d, h, w = map(float, coordinates)
        self._click([VoxelPoint(d, h, w)], include_interaction, run_prediction)

    def add_bbox_interaction(
        self,
        bbox_coords: Sequence[Sequence[int]],
        include_interaction: bool,  # noqa: FBT001
        run_prediction: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Click at the middle of a box.

        Args:
            bbox_coords: [[x1, x2], [y1, y2], [z1, z2]], half-open voxel indices.
            include_interaction: around the object; False where it is not.
            run_prediction: False keeps the click for the next prediction.

        Raises:
            ClickError: for a box that is empty or outside the image.
        """
        if len(bbox_coords) != 3 or any(len(ends) != 2 or ends[0] >= ends[1] for ends in bbox_coords):
            raise ClickError(f"the box {bbox_coords} is empty; give [[x1, x2], [y1, y2], [z1, z2]], half-open")
        d, h, w = ((a + b - 1) / 2 for a, b in bbox_coords)
        self._click([VoxelPoint(d, h, w)], include_interaction, run_prediction)

    def add_scribble_interaction(
        self,
        scribble_image: NDArray[np.generic],
        include_interaction: bool,  # noqa: FBT001
        run_prediction: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Click at most four times, evenly along the voxels of a scribble (X, Y, Z), above 0.

        Raises:
            ClickError: for an empty scribble or one of another shape.
        """
        voxels = np.argwhere(self._drawn(scribble_image))
        steps = np.linspace(0, len(voxels) - 1, min(len(voxels), _MAX_SCRIBBLE_CLICKS) + 2)[1:-1]
        places = [VoxelPoint.of(voxels[round(step)]) for step in steps]
        self._click(places, include_interaction, run_prediction)

    def add_lasso_interaction(
        self,
        lasso_image: NDArray[np.generic],
        include_interaction: bool,  # noqa: FBT001
        run_prediction: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Click at the voxel of a lasso's area (X, Y, Z), above 0, that is farthest from its border.

        Raises:
            ClickError: for an empty lasso or one of another shape.
        """
        area = self._drawn(lasso_image)
        box = bounding_box(area)
        if box is None:
            raise ClickError("the lasso is empty; draw around some voxels")
        # In a lasso of one plane the distance counts there: across it there is no border.
        padding = [(0, 0) if length == 1 else (1, 1) for length in box.shape_dhw]
        depth = ndimage.distance_transform_edt(np.pad(area[box.slices], padding))
        index = np.unravel_index(int(depth.argmax()), depth.shape)
        d, h, w = (
            float(i - before + start)
            for i, (before, _), start in zip(index, padding, box.start_dhw, strict=True)
        )
        self._click([VoxelPoint(d, h, w)], include_interaction, run_prediction)

    def add_initial_seg_interaction(
        self,
        initial_seg: NDArray[np.generic],  # noqa: ARG002
        run_prediction: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> None:
        """Refuse: our models begin with a click.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("our models cannot begin with a segmentation; click inside the object")

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

    def _click(self, places: list[VoxelPoint], include: bool, run_now: bool) -> None:  # noqa: FBT001
        scan = self._opened()
        clicks = [Click(place, include) for place in places]
        for click in clicks:
            click.world(scan.volume.grid)
        waiting = [*self._waiting, clicks]
        if run_now:
            known = self._predictions[-1][0] if self._predictions else []
            new = sorted((c for group in waiting for c in group), key=lambda c: not c.foreground)
            clicks, waiting = [*known, *new], []
            self._predictions.append((clicks, PackedMask.of(scan.predict(clicks).mask.array)))
            self._write_target()
        self._waiting = waiting

    def _opened(self) -> ScanPredictor:
        if self._scan is None:
            raise ConfigError("there is no image; call set_image first")
        return self._scan

    def _drawn(self, image: NDArray[np.generic]) -> NDArray[np.bool_]:
        drawn = np.asarray(image) > 0
        shape = self._opened().volume.grid.shape_dhw
        if drawn.shape != shape or not drawn.any():
            raise ClickError(
                f"a drawing of shape {drawn.shape} with {drawn.sum()} voxels cannot be used; draw in {shape}"
            )
        return drawn

    def _write_target(self) -> None:
        if self._target is not None:
            mask = np.zeros(self._opened().volume.grid.shape_dhw, dtype=np.uint8)
            if self._predictions:
                self._predictions[-1][1].paint(mask, 1)
            if isinstance(self._target, np.ndarray):
                self._target[...] = mask
            else:
                import torch

                self._target.copy_(torch.from_numpy(mask))
