"""clickvol: one click in a CT or MR scan gives the tumour in 3D.

The whole public interface:

    from clickvol import Click, load_model, read_volume, segment, write_mask

    volume = read_volume("scan.nii.gz")                         # or .nrrd, .mha, a DICOM folder
    segmentation = segment(volume, [Click.at((120, 88, 41))])   # voxel i, j, k of the file as stored
    write_mask(segmentation.mask, "mask.nii.gz")                # on exactly the grid of the scan
    segmentation.mask.volume_ml, segmentation.fields_of_view, segmentation.probability()

Without files: `Volume.from_nibabel(image)`, `.from_sitk(image)`, `.from_monai(tensor)`, `.from_numpy(array,
axes="ijk", affine_ras_mm=...)`, and back `.to_nibabel()`, `.to_sitk()`, `.to_numpy(axes=...)`; `Mask` likewise.
`segment`, `set_volume` and `dice` also take such an image as it is.

What else can be pointed with, in the place of a click or with it: `Line` (a diameter), `Box`, `Scribble`,
`Lasso`, `GivenMask` (to correct).
Many clicks on one scan, several objects, undo and redo: `session = InteractiveSession(load_model())`, then
`session.set_volume(volume)`, `session.click(point)`, `session.undo()`, `session.mask()`.
Scripts for nnInteractive: `nnInteractiveInferenceSession` has its method names.
ProMISe-3D's boundary loss for any network: `boundary_loss(logits, label, BoundaryTerm())`.
The bare network, to compare with a published one: `patch_logits(model, patch_dhw, clicks_dhw)`.
Every error that a user can cause is a `ClickvolError` with a one-line message.

For research; not a medical device. Names are imported when they are first used, so that `import
clickvol` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from clickvol.version import __version__

if TYPE_CHECKING:
    from clickvol.errors import ClickvolError
    from clickvol.interactive.nninteractive import nnInteractiveInferenceSession
    from clickvol.interactive.session import InteractiveSession
    from clickvol.io.formats import read_volume, write_mask
    from clickvol.io.volume import Mask, Volume
    from clickvol.methods.recipe import BoundaryTerm
    from clickvol.metrics.overlap import dice
    from clickvol.predict.patch_logits import patch_logits
    from clickvol.predict.scan_predictor import segment
    from clickvol.predict.segmentation import Segmentation
    from clickvol.prompts.click import Click
    from clickvol.prompts.spatial import Box, GivenMask, Lasso, Line, Scribble
    from clickvol.training.tasks.losses import boundary_loss
    from clickvol.weights.load import LoadedModel, load_model

__all__ = [
    "BoundaryTerm",
    "Box",
    "Click",
    "ClickvolError",
    "GivenMask",
    "InteractiveSession",
    "Lasso",
    "Line",
    "LoadedModel",
    "Mask",
    "Scribble",
    "Segmentation",
    "Volume",
    "__version__",
    "boundary_loss",
    "dice",
    "load_model",
    "nnInteractiveInferenceSession",
    "patch_logits",
    "read_volume",
    "segment",
    "write_mask",
]

_HOMES = {
    "BoundaryTerm": "clickvol.methods.recipe",
    "Box": "clickvol.prompts.spatial",
    "Click": "clickvol.prompts.click",
    "ClickvolError": "clickvol.errors",
    "GivenMask": "clickvol.prompts.spatial",
    "InteractiveSession": "clickvol.interactive.session",
    "Lasso": "clickvol.prompts.spatial",
    "Line": "clickvol.prompts.spatial",
    "LoadedModel": "clickvol.weights.load",
    "Mask": "clickvol.io.volume",
    "Scribble": "clickvol.prompts.spatial",
    "Segmentation": "clickvol.predict.segmentation",
    "Volume": "clickvol.io.volume",
    "boundary_loss": "clickvol.training.tasks.losses",
    "dice": "clickvol.metrics.overlap",
    "load_model": "clickvol.weights.load",
    "nnInteractiveInferenceSession": "clickvol.interactive.nninteractive",
    "patch_logits": "clickvol.predict.patch_logits",
    "read_volume": "clickvol.io.formats",
    "segment": "clickvol.predict.scan_predictor",
    "write_mask": "clickvol.io.formats",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'clickvol' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
