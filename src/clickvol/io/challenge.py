"""Scans of the challenge "CVPR 2025: Foundation Models for Interactive 3D Biomedical Image Segmentation".

One .npz per scan: `imgs` (D, H, W), `spacing` in mm, with labels `gts` (D, H, W) of 0, 1, 2, ... where they are
known. Pickled objects, as which the challenge stores its prompts, are never read.
"""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume


def read_challenge_scan(path: Path) -> Volume:
    """Read `imgs` and `spacing` of a file.

    The values are 0 to 255 whatever the modality, not HU, so that the scan is treated as one without unit
    ("MR"). There is no orientation in the file: slices are taken to grow to superior, rows to posterior,
    columns to left, as in most axial scans. `spacing` is (x, y, z). UnreadableVolumeError for a damaged file or
    arrays of another form, BadGeometryError for a spacing that is not above 0.
    """
    array, spacing = _array(path, "imgs"), _array(path, "spacing")
    if array.ndim != 3 or spacing.shape != (3,) or not np.isfinite(array).all():
        raise UnreadableVolumeError(
            f"{path}: imgs has shape {array.shape} and spacing {spacing.shape}, but finite (D, H, W) and "
            "(3,) are expected; make it again"
        )
    x, y, z = spacing.astype(np.float64).tolist()
    d, h, w = array.shape
    return Volume(array, VolumeGrid.axial((d, h, w), (z, y, x)), "MR", str(path))


def read_challenge_label(path: Path) -> Volume:
    """Read `gts`, a value for each class, on the grid of the scan; errors as `read_challenge_scan`."""
    scan, labels = read_challenge_scan(path), _array(path, "gts")
    if labels.shape != scan.grid.shape_dhw:
        raise UnreadableVolumeError(
            f"{path}: gts has shape {labels.shape}, imgs {scan.grid.shape_dhw}; make it again"
        )
    return replace(scan, array=labels, modality="unknown")


def _array(path: Path, name: str) -> NDArray[Any]:
    """Return a plain array of an .npz; a pickled one is refused and never opened."""
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            if name not in content:
                raise UnreadableVolumeError(
                    f"{path} has no array {name!r}; this is no labelled scan of the challenge"
                )
            array: NDArray[Any] = content[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UnreadableVolumeError(
            f"{path}: {name!r} is damaged or a pickled object, which is never read; make it again"
        ) from error
    if array.dtype.kind not in "iufb":
        raise UnreadableVolumeError(
            f"{path}: {name!r} holds {array.dtype}, but numbers are expected; make it again"
        )
    return array
