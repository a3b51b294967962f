"""Grids of any orientation, for hypothesis and for hand-made examples."""

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from clickvol.geometry.grid import VolumeGrid


def make_grid(shape_dhw, spacing_dhw_mm, *, order=(0, 1, 2), signs=(1, 1, 1), degrees=(0, 0, 0), at=(0, 0, 0)):
    """Return a grid whose array axes run along the rotated world axes `order`, with `signs`."""
    axes = np.zeros((3, 3))
    for axis in range(3):
        axes[order[axis], axis] = signs[axis] * spacing_dhw_mm[axis]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ axes
    affine[:3, 3] = at
    return VolumeGrid(shape_dhw, affine)


@st.composite
def any_grid(draw, *, oblique=True):
    """Draw an anisotropic grid, its axes flipped and permuted, and turned if `oblique`."""
    spacings = st.floats(0.3, 6.0)
    angles = st.floats(-180, 180) if oblique else st.just(0.0)
    return make_grid(
        draw(st.tuples(*[st.integers(1, 40)] * 3)),
        draw(st.tuples(spacings, spacings, spacings)),
        order=draw(st.permutations([0, 1, 2])),
        signs=draw(st.tuples(*[st.sampled_from([-1, 1])] * 3)),
        degrees=draw(st.tuples(angles, angles, angles)),
        at=draw(st.tuples(*[st.floats(-300, 300)] * 3)),
    )
