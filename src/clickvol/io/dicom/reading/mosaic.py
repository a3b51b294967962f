"""Siemens mosaics: the slices of a volume as tiles of one picture.

Which tiles there are and which way they go is told by Siemens' own header (CSA) alone, read by nibabel. Tiles
fill the picture row by row; the position in the file is that of a slice as large as the whole picture.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.headers import ImageFile, finite_numbers, whole_number

_CSA_CREATOR, _CSA_GROUP, _CSA_IMAGE = "SIEMENS CSA HEADER", 0x0029, 0x10


@dataclass(frozen=True, slots=True)
class Mosaic:
    """How a picture holds its slices.

    Attributes:
        num_tiles: number of slices.
        per_side: tiles in a row, and rows of them.
        shape_hw: rows and columns of a tile.
        step_lps_mm: (3,) from a slice to the next one.
    """

    num_tiles: int
    per_side: int
    shape_hw: tuple[int, int]
    step_lps_mm: tuple[float, float, float]

    @property
    def picture_shape_hw(self) -> tuple[int, int]:
        """Rows and columns of the whole picture."""
        return self.shape_hw[0] * self.per_side, self.shape_hw[1] * self.per_side

    def position_lps_mm(
        self,
        tile: int,
        corner_lps_mm: NDArray[np.float64],
        orientation_lps: NDArray[np.float64],
        spacing_hw_mm: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the centre of the first pixel of a tile (3,) from what the file says of the whole picture."""
        margin_h, margin_w = ((self.per_side - 1) * size / 2 for size in self.shape_hw)
        row, column = orientation_lps[:3], orientation_lps[3:]
        first = corner_lps_mm + row * spacing_hw_mm[1] * margin_w + column * spacing_hw_mm[0] * margin_h
        return np.asarray(first + tile * np.array(self.step_lps_mm))

    def tiles(self, picture: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the slices (tiles, H, W) of a picture (rows, columns)."""
        height, width = self.shape_hw
        grid = picture.reshape(self.per_side, height, self.per_side, width)
        return grid.transpose(0, 2, 1, 3).reshape(-1, height, width)[: self.num_tiles]


def read_mosaic(file: ImageFile) -> Mosaic | None:
    """Return how a file holds its slices, None for one; DicomSeriesError where a mosaic does not say."""
    image_type = file.header.get("ImageType") or ()
    if "MOSAIC" not in (
        str(part).upper() for part in ([image_type] if isinstance(image_type, str) else image_type)
    ):
        return None
    num_tiles, normal = _csa(file)
    rows, columns = whole_number(file.header.get("Rows")) or 0, whole_number(file.header.get("Columns")) or 0
    distances = (finite_numbers(file.header.get(k), 1) for k in ("SpacingBetweenSlices", "SliceThickness"))
    distance_mm = next((float(v[0]) for v in distances if v is not None and v[0] > 0), None)
    per_side = math.ceil(math.sqrt(num_tiles)) if num_tiles else 0
    if not per_side or rows % per_side or columns % per_side or normal is None or distance_mm is None:
        raise DicomSeriesError(
            f"{file.path.name} is a mosaic: the slices of a volume tiled in one picture, and its Siemens "
            "header (CSA) does not say how many they are and where they lie; export the series as single or "
            "enhanced slices, or convert it with dcm2niix where the header is whole"
        )
    x, y, z = (normal * distance_mm).tolist()
    return Mosaic(num_tiles, per_side, (rows // per_side, columns // per_side), (x, y, z))


def _csa(file: ImageFile) -> tuple[int, NDArray[np.float64] | None]:
    """Return the number of tiles, 0 where it is unknown, and the unit vector (3,) from slice to slice."""
    import pydicom
    from nibabel.nicom import csareader

    try:
        dataset = pydicom.dcmread(file.path, stop_before_pixels=True, force=True)
        tags = csareader.read(bytes(dataset.private_block(_CSA_GROUP, _CSA_CREATOR)[_CSA_IMAGE].value))
        number = int(csareader.get_scalar(tags, "NumberOfImagesInMosaic") or 0)
        normal = finite_numbers(csareader.get_vector(tags, "SliceNormalVector", 3), 3)
    except Exception:
        # Neither reader promises what it raises for a header that somebody cut down.
        return 0, None
    is_unit = normal is not None and abs(float(np.linalg.norm(normal)) - 1) < 1e-2
    return (max(number, 0), normal) if is_unit else (0, None)
