"""The shape of a synthetic patient: legs with skin, fat, muscles, bone and vessels, and a tumour.

All lengths are millimetres and all positions are RAS, counted from the middle of the view. The
same anatomy can be rendered on any grid and as CT or MR; see `clickvol.phantoms.phantom`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid

_Array32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SmoothField:
    """A sum of plane waves with random directions, wavelengths and phases.

    The mean is about 0 and the variance 1. A plane wave on a regular grid is an outer product of
    three short vectors, so that a whole block of voxels is one matrix product.

    Attributes:
        wave_vectors_rad_per_mm: (M, 3), along RAS x, y, z.
        phases_rad: (M,).
    """

    wave_vectors_rad_per_mm: NDArray[np.float64]
    phases_rad: NDArray[np.float64]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        wavelengths_mm: tuple[float, float],
        *,
        stretch_xyz: tuple[float, float, float] = (1.0, 1.0, 1.0),
        num_waves: int = 20,
    ) -> "SmoothField":
        """Draw a field between two wavelengths; its features are stretched along x, y and z."""
        directions = rng.normal(size=(num_waves, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        shortest, longest = np.log(wavelengths_mm).tolist()
        wavelengths = np.exp(rng.uniform(shortest, longest, size=(num_waves, 1)))
        vectors = directions * (2 * np.pi / wavelengths) / np.array(stretch_xyz)
        return cls(vectors, rng.uniform(0, 2 * np.pi, size=num_waves))

    def sample(self, grid: VolumeGrid, origin_ras_mm: NDArray[np.float64], rows: slice) -> _Array32:
        """Return the field on slices of a grid, (rows, H, W) float32; its zero lies at `origin_ras_mm`."""
        steps = grid.gradients_per_voxel(self.wave_vectors_rad_per_mm)
        first_ras_mm = grid.to_world(VoxelPoint(0, 0, 0)).as_array()
        start = self.wave_vectors_rad_per_mm @ (first_ras_mm - origin_ras_mm)
        _, num_h, num_w = grid.shape_dhw
        along_d = np.exp(
            1j * (np.outer(np.arange(rows.start, rows.stop), steps[:, 0]) + start + self.phases_rad)
        )
        along_h = np.exp(1j * np.outer(np.arange(num_h), steps[:, 1]))
        along_w = np.exp(1j * np.outer(steps[:, 2], np.arange(num_w)))
        scale = np.sqrt(2.0 / len(self.phases_rad))
        planes = (scale * along_d[:, None] * along_h[None]).reshape(-1, len(self.phases_rad))
        left = np.concatenate([planes.real, -planes.imag], axis=1).astype(np.float32)
        right = np.concatenate([along_w.real, along_w.imag]).astype(np.float32)
        return (left @ right).reshape(len(along_d), num_h, num_w)


_Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Tube:
    """A bone or a vessel along the limb: (2,) mm beside its axis at mid height, mm sideways per mm."""

    centre_uv_mm: _Vector
    drift_uv: _Vector
    radius_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class Limb:
    """A thigh or an arm; with `mirror_x_mm`, its mirror image stands beside it.

    Attributes:
        axis_xy_mm: (2,), where the axis crosses the height of the view's middle.
        tilt_xy: (2,), mm sideways per mm upwards.
        flatness: ratio of the width to the depth.
        taper_per_mm: relative change of the radius per mm upwards.
        mirror_x_mm: where the plane between the two legs lies; None for one limb only.
        muscles: one tube per muscle; each owns the region nearest to its line.
        vessels: thin tubes with a sleeve of fat.
    """

    axis_xy_mm: _Vector
    tilt_xy: _Vector
    radius_mm: float
    fat_mm: float
    skin_mm: float
    flatness: float
    taper_per_mm: float
    mirror_x_mm: float | None
    muscles: tuple[Tube, ...]
    septum_mm: float
    bones: tuple[Tube, ...]
    cortex_mm: float
    vessels: tuple[Tube, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tumour:
    """A mass of several ellipsoids that run into each other.

    Attributes:
        centres_mm: (N, 3).
        to_unit_per_mm: (N, 3, 3), maps an ellipsoid to the unit ball.
        radii_mm: (N,), mean radius of each ellipsoid.
        blend_mm: how softly they join.
        roughness_mm: amplitude of the surface's deformation.
        edge_mm: width of the transition to the tissue around.
        rim_mm: thickness of the fat that covers parts of the surface.
        contrast: -1..1, where its intensity lies in the usual range.
        necrosis: 0..1, how much darker the core is.
    """

    centres_mm: _Vector
    to_unit_per_mm: _Vector
    radii_mm: _Vector
    blend_mm: float
    roughness_mm: float
    edge_mm: float
    rim_mm: float
    contrast: float
    necrosis: float


@dataclass(frozen=True, slots=True, eq=False)
class TissueFields:
    """The smooth fields that make the anatomy irregular; each has variance 1."""

    warp_u: SmoothField
    warp_v: SmoothField
    fat_thickness: SmoothField
    septa: SmoothField
    strands: SmoothField
    fibres: SmoothField
    tumour_surface: SmoothField
    tumour_texture: SmoothField
    bias: SmoothField


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A synthetic patient, counted in RAS mm from the middle of the view."""

    limb: Limb
    tumour: Tumour
    fields: TissueFields


def draw_anatomy(
    rng: np.random.Generator,
    *,
    view_xyz_mm: tuple[float, float, float],
    tumour_diameter_mm: float | None = None,
) -> Anatomy:
    """Draw a patient whose tumour's centre lies in the view, of a size along the patient's axes.

    The tumour is about `tumour_diameter_mm` long; drawn from 20 to 150 (small ones more often, and at most .7
    of the view's width) when not given.
    """
    if tumour_diameter_mm is None:
        largest = float(np.clip(0.7 * min(view_xyz_mm[:2]), 21.0, 150.0))
        tumour_diameter_mm = float(np.exp(rng.uniform(np.log(20.0), np.log(largest))))
    radius = float(rng.uniform(62, 95))
    fat = float(rng.uniform(4, 0.28 * radius))
    bone_radius = float(rng.uniform(11.5, 15.5))

    # Between bone and skin where it fits; a large one bulges the skin and never swallows the bone.
    half_width = 0.38 * tumour_diameter_mm
    inner, outer = bone_radius + 0.85 * half_width, radius - fat - 0.6 * half_width
    distance = float(rng.uniform(inner, max(inner, outer)))
    angle = rng.uniform(0, 2 * np.pi)
    from_axis = distance * np.array([np.cos(angle), np.sin(angle)])
    limit = 0.4 * np.array(view_xyz_mm)
    drawn = np.append(from_axis * rng.uniform(0.3, 1.1), 0.5 * tumour_diameter_mm * rng.normal())
    limit = np.maximum(limit - 0.25 * tumour_diameter_mm, 0.1 * limit)
    centre = np.clip(drawn, -limit, limit)

    return Anatomy(
        limb=_draw_limb(rng, centre[:2] - from_axis, radius, fat, bone_radius),
        tumour=_draw_tumour(rng, centre, tumour_diameter_mm),
        fields=_draw_fields(rng, tumour_diameter_mm),
    )


def _draw_limb(
    rng: np.random.Generator, axis_xy: _Vector, radius: float, fat: float, bone_radius: float
) -> Limb:
    muscle_radius = radius - fat
    side = rng.choice([-1.0, 1.0])
    gap = rng.uniform(-6.0, 14.0)
    shin = rng.uniform() < 0.25  # two bones
    bones = [_tube(rng, 0.0, 0.12 * muscle_radius, bone_radius, drift=0.03)]
    if shin:
        bones.append(_tube(rng, 0.5 * muscle_radius, 2.0, 0.5 * bone_radius, drift=0.03))
    deep, outer = int(rng.integers(3, 6)), int(rng.integers(6, 9))
    muscles = [
        *_ring(rng, deep, 0.36 * muscle_radius, 0.1 * muscle_radius),
        *_ring(rng, outer, 0.76 * muscle_radius, 0.1 * muscle_radius),
    ]
    near_bone = rng.uniform(0.35, 0.5) * muscle_radius
    artery = _tube(rng, near_bone, 2.0, rng.uniform(2.5, 4.0), drift=0.1)
    vein = Tube(
        artery.centre_uv_mm + rng.choice([-1, 1], 2) * 6.0,
        artery.drift_uv,
        artery.radius_mm * rng.uniform(1.0, 1.4),
    )
    small = [
        _tube(rng, where * muscle_radius, 4.0, rng.uniform(0.8, 1.8), drift=0.15)
        for where in rng.uniform(0.5, 1.0, size=2)
    ]
    below_skin = [_tube(rng, radius - 0.5 * fat, 1.0, rng.uniform(0.8, 1.8), drift=0.05)]
    return Limb(
        axis_xy_mm=axis_xy,
        tilt_xy=rng.normal(0, 0.06, size=2),
        radius_mm=radius,
        fat_mm=fat,
        skin_mm=float(rng.uniform(1.2, 2.2)),
        flatness=float(rng.uniform(0.88, 1.1)),
        taper_per_mm=float(rng.uniform(-0.0002, 0.0009)),
        mirror_x_mm=float(axis_xy[0] + side * (radius + 0.5 * gap)) if rng.uniform() < 0.8 else None,
        muscles=tuple(muscles),
        septum_mm=float(rng.uniform(0.4, 1.6)),
        bones=tuple(bones),
        cortex_mm=float(rng.uniform(0.3, 0.5) * bone_radius),
        vessels=(artery, vein, *small, *below_skin),
    )


def _tube(rng: np.random.Generator, distance: float, jitter: float, radius: float, *, drift: float) -> Tube:
    """Draw a tube at some distance from the axis, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    centre = distance * np.array([np.cos(angle), np.sin(angle)]) + rng.normal(0, jitter, size=2)
    return Tube(centre, rng.normal(0, drift, size=2), float(radius))


def _ring(rng: np.random.Generator, count: int, distance: float, jitter: float) -> list[Tube]:
    """Draw tubes at even angles around the axis, then shake them."""
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count
    return [
        Tube(
            distance * np.array([np.cos(a), np.sin(a)]) + rng.normal(0, jitter, size=2),
            rng.normal(0, 0.08, size=2),
            0.0,
        )
        for a in angles
    ]


def _draw_tumour(rng: np.random.Generator, centre: _Vector, diameter: float) -> Tumour:
    num_lobes = int(rng.integers(2, 6))
    # The first is the body of the mass, longest nearly along the limb; the others are its lobes.
    radii = [diameter * np.array([rng.uniform(0.3, 0.4), rng.uniform(0.3, 0.42), 0.45])]
    tilt = Rotation.from_rotvec(rng.normal(0, 0.35, size=3)).as_matrix()
    turn = Rotation.from_rotvec([0, 0, rng.uniform(0, np.pi)]).as_matrix()
    frames = [tilt @ turn]
    centres = [centre]
    for _ in range(num_lobes):
        direction = rng.normal(size=3)
        direction *= rng.uniform(0.5, 0.8) / np.linalg.norm(direction)
        centres.append(centre + frames[0] @ (direction * radii[0]))
        radii.append(diameter * rng.uniform(0.13, 0.26) * rng.uniform(0.8, 1.2, size=3))
        frames.append(Rotation.random(rng=rng).as_matrix())
    return Tumour(
        centres_mm=np.stack(centres),
        to_unit_per_mm=np.stack([f.T / r[:, None] for f, r in zip(frames, radii, strict=True)]),
        radii_mm=np.array([np.prod(r) ** (1 / 3) for r in radii]),
        blend_mm=0.04 * diameter,
        roughness_mm=float(rng.uniform(0.012, 0.035) * diameter),
        edge_mm=float(rng.uniform(1.0, 4.0)),
        rim_mm=float(rng.uniform(0.0, 1.6)),
        contrast=float(rng.uniform(-1, 1)),
        necrosis=float(max(rng.uniform(-1, 1), 0.0)) if diameter > 50 else 0.0,
    )


def _draw_fields(rng: np.random.Generator, tumour_diameter: float) -> TissueFields:
    along_limb = (1.0, 1.0, 4.0)
    return TissueFields(
        warp_u=SmoothField.draw(rng, (75, 220), stretch_xyz=(1, 1, 2)),
        warp_v=SmoothField.draw(rng, (75, 220), stretch_xyz=(1, 1, 2)),
        fat_thickness=SmoothField.draw(rng, (60, 200), stretch_xyz=(1, 1, 2)),
        septa=SmoothField.draw(rng, (30, 90), stretch_xyz=(1, 1, 2)),
        strands=SmoothField.draw(rng, (25, 60), stretch_xyz=(1, 1, 3)),
        fibres=SmoothField.draw(rng, (4, 25), stretch_xyz=along_limb, num_waves=32),
        tumour_surface=SmoothField.draw(rng, (0.2 * tumour_diameter, 0.7 * tumour_diameter)),
        tumour_texture=SmoothField.draw(rng, (6, max(10.0, 0.5 * tumour_diameter)), num_waves=32),
        bias=SmoothField.draw(rng, (250, 500), num_waves=6),
    )
