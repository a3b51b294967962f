"""What a user's program sees of the public names, judged by mypy --strict and pyright (`make types`).

A comment that ignores an error stands where there must be one: both programs complain of one too many.
"""

from typing import TYPE_CHECKING, assert_type

import numpy as np
from numpy.typing import NDArray

from clickvol import (
    BoundaryTerm,
    Box,
    Click,
    ClickvolError,
    GivenMask,
    InteractiveSession,
    Lasso,
    Line,
    LoadedModel,
    Mask,
    Scribble,
    Segmentation,
    Volume,
    __version__,
    boundary_loss,
    dice,
    load_model,
    nnInteractiveInferenceSession,
    patch_logits,
    read_volume,
    segment,
    write_mask,
)

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from torch import Tensor


def scans(array: NDArray[np.int16], image: "Nifti1Image") -> Volume:
    """Scans from files and from memory."""
    assert_type(read_volume("scan.nii.gz"), Volume)
    assert_type(Volume.from_nibabel(image, modality="CT"), Volume)
    assert_type(Mask.from_numpy(array, axes="ijk", spacing_mm=(1, 1, 1)), Mask)
    Volume.from_numpy(array, axes="xyz", spacing_mm=(1, 1, 1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    read_volume("scan.nii.gz").arry.sum()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    return Volume.from_numpy(array, axes="dhw", affine_ras_mm=np.eye(4))


def one_click(volume: Volume, image: "Nifti1Image") -> Segmentation:
    """The main use."""
    model = load_model(device="cpu")
    assert_type(model, LoadedModel)
    prompts = [Click.at((1, 2, 3)), Click.at((1.0, 2.0, 3.0), space="ras", foreground=False)]
    segmentation = segment(volume, prompts, model, modality="CT", organ_mask=image)
    assert_type(segmentation, Segmentation)
    assert_type(segmentation.mask, Mask)
    assert_type(segmentation.mask.volume_ml, float)
    assert_type(segmentation.warnings, tuple[str, ...])
    assert_type(segmentation.probability(), NDArray[np.float32])
    assert_type(dice(segmentation.mask, image), float)
    write_mask(segmentation.mask, "mask.nii.gz", compression_level=9)
    segment(image, [Click.at((1, 2, 3))], modality="PET")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    segment("scan.nii.gz", prompts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    write_mask(segmentation, "mask.nii.gz")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return segmentation


def many_clicks(
    volume: Volume, line: Line, box: Box, scribble: Scribble, lasso: Lasso, given: GivenMask
) -> Mask:
    """A session, and what else there is to point with."""
    assert_type(segment(volume, [line, box, scribble, lasso, given]), Segmentation)
    session = InteractiveSession(load_model())
    session.set_volume(volume)
    answer = session.click(Click.at((1, 2, 3)).position)
    assert_type(answer.num_voxels, int)
    assert_type(session.undo(), bool)
    session.click((1, 2, 3))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return session.mask()


def for_researchers(
    model: LoadedModel, patch: NDArray[np.float32], logits: "Tensor", label: "Tensor"
) -> "Tensor":
    """The bare network, the loss, and the scripts of another program."""
    assert_type(patch_logits(model, patch, [[1, 2, 3]]), NDArray[np.float32])
    theirs = nnInteractiveInferenceSession(model)
    theirs.set_image(patch[None], spacing_mm=(1, 1, 1))
    theirs.add_point_interaction((1, 2, 3), include_interaction=True)
    BoundaryTerm(border="outside")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return boundary_loss(logits, label, BoundaryTerm(kernel_dhw=(3, 3, 3)))


def errors() -> str:
    """Every error that a user can cause has one base."""
    try:
        read_volume("nowhere.nii.gz")
    except ClickvolError as error:
        return f"{__version__}: {error}"
    return ""
