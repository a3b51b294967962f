"""NRRD without compression: what OHIF's extension for MONAI Label can read. Torch-free."""

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid

_TYPES = {
    **{"uint8": "uchar", "uint16": "ushort", "int16": "short", "int32": "int"},
    **{"float32": "float", "float64": "double"},
}


def raw_nrrd(array: NDArray[np.generic], grid: VolumeGrid) -> bytes:
    """Return an array (D, H, W) as a NRRD file (format 4 of Teem's definition), in LPS as ITK writes it."""
    affine = grid.affine_ijk_lps_mm[:3]
    d, h, w = array.shape
    header = (
        "NRRD0004",
        f"type: {_TYPES[array.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {w} {h} {d}",
        f"space directions: {' '.join(_vector(affine[:, axis]) for axis in range(3))}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {_vector(affine[:, 3])}",
    )
    text = "\n".join(header) + "\n\n"
    return text.encode("ascii") + array.astype(array.dtype.newbyteorder("<")).tobytes()


def _vector(values: NDArray[np.float64]) -> str:
    return f"({','.join(repr(float(v)) for v in values)})"
