"""Hand-made grids, scans and DICOM files for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from scipy.spatial.transform import Rotation

from clickvol.geometry.grid import VolumeGrid
from reference.dicom_files import enhanced, make_slice

SHAPE_DHW = (4, 5, 6)


def grid_of(kind: str) -> VolumeGrid:
    """Return a small anisotropic grid; its (i, j, k) affine is the given kind of awkward."""
    spacing = np.array([0.7, 1.3, 5.0])
    directions = {
        "plain": np.eye(3),
        "flipped": np.diag([-1.0, 1.0, 1.0]),
        "lps": np.diag([-1.0, -1.0, 1.0]),
        "permuted": np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, 1.0, 0]]),
        "oblique": Rotation.from_euler("xyz", [0.3, -0.5, 1.1]).as_matrix(),
        "oblique-flipped": Rotation.from_euler("xyz", [-1.2, 0.4, 2.0]).as_matrix() @ np.diag([1.0, -1.0, 1.0]),
    }
    affine = np.eye(4)
    affine[:3, :3] = directions[kind] * spacing
    affine[:3, 3] = [-101.25, 55.5, 733.125]
    d, h, w = SHAPE_DHW
    return VolumeGrid.from_ijk((w, h, d), affine)


GRID_KINDS = ["plain", "flipped", "lps", "permuted", "oblique", "oblique-flipped"]


@pytest.fixture(params=GRID_KINDS)
def grid(request: pytest.FixtureRequest) -> VolumeGrid:
    return grid_of(request.param)


@pytest.fixture
def plain_grid() -> VolumeGrid:
    return grid_of("plain")


@pytest.fixture
def sheared_grid() -> VolumeGrid:
    affine = np.array(grid_of("plain").affine_ijk_ras_mm)
    affine[1, 2] = 1.5
    d, h, w = SHAPE_DHW
    return VolumeGrid.from_ijk((w, h, d), affine)


@pytest.fixture
def scan_array() -> np.ndarray:
    """(4, 5, 6) int16, all values different."""
    return (np.arange(120).reshape(SHAPE_DHW) * 7 - 300).astype(np.int16)


@pytest.fixture
def stored_pixels() -> np.ndarray:
    """(4, 5, 6) uint16: 4 slices of 5 rows and 6 columns, all values different."""
    return (np.arange(120).reshape(SHAPE_DHW) * 9 + 500).astype(np.uint16)


@pytest.fixture
def write_series(tmp_path: Path, stored_pixels: np.ndarray) -> Callable[..., Path]:
    """Return a function that writes a CT series in a shuffled order of file names."""

    def write(
        folder: str = "ct",
        *,
        pixels: np.ndarray = stored_pixels,
        skip: tuple[int, ...] = (),
        per_slice: Callable[[int], dict[str, Any]] = lambda _: {},
        **tags: Any,
    ) -> Path:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        for index, plane in enumerate(pixels):
            if index not in skip:
                dataset = make_slice(plane, index, **(tags | per_slice(index)))
                uid = tags.get("SeriesInstanceUID", "1.2.3.4")
                dataset.save_as(path / f"IM{(index * 7) % 11:03d}-{uid}", enforce_file_format=True)
        return path

    return write


@pytest.fixture
def make_dataset() -> Callable[..., FileDataset]:
    return make_slice


@pytest.fixture
def enhanced_ct(stored_pixels: np.ndarray) -> FileDataset:
    return enhanced(stored_pixels)
