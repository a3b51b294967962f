"""Painting a synthetic patient: which tissue a voxel holds, and what a scanner sees there."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.phantoms.anatomy import Anatomy, Limb, Tube, Tumour

PhantomModality = Literal["CT", "MR"]
_Array32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tissues:
    """Intensity of each tissue, and the spread of what varies; HU for CT, arbitrary for MR."""

    air: float
    skin: float
    fat: float
    strand: float
    muscle: float
    muscle_spread: float
    fibre_spread: float
    cortex: float
    marrow: float
    vessel: float
    tumour: float
    tumour_spread: float
    tumour_texture: float
    core_drop: float
    noise: tuple[float, float]


TISSUES: dict[PhantomModality, Tissues] = {
    "CT": Tissues(
        air=-1000, skin=15, fat=-105, strand=-45, muscle=54, muscle_spread=3, fibre_spread=5,
        cortex=1150, marrow=-30, vessel=46, tumour=35, tumour_spread=7, tumour_texture=4,
        core_drop=14, noise=(9, 24),
    ),
    "MR": Tissues(
        air=0, skin=420, fat=1000, strand=620, muscle=305, muscle_spread=10, fibre_spread=16,
        cortex=25, marrow=860, vessel=90, tumour=280, tumour_spread=45, tumour_texture=22,
        core_drop=60, noise=(8, 26),
    ),
}  # fmt: skip


class Painter:
    """Draws blocks of slices: tissues from the outside in, each edge as soft as a voxel."""

    def __init__(
        self,
        anatomy: Anatomy,
        grid: VolumeGrid,
        centre_ras_mm: NDArray[np.float64],
        tissues: Tissues,
    ) -> None:
        self._anatomy = anatomy
        self._grid = grid
        self._centre = centre_ras_mm
        self._tissues = tissues
        # Partial volume: an edge is at least as wide as a voxel is on its two short sides.
        self._edge_mm = float(np.sort(grid.spacing_dhw_mm)[:2].mean())

    def paint(self, rows: slice, modality: PhantomModality) -> tuple[_Array32, _Array32]:
        """Return the noise-free image and the distance to the tumour (mm, negative inside).

        Both are (rows, H, W) float32. The distance is positive wherever bone or air wins.
        """
        limb, tumour = self._anatomy.limb, self._anatomy.tumour
        tissues, edge = self._tissues, self._edge_mm
        x, y, z = self._positions(rows)
        u, v = _across_axis(limb, x, y, z)
        u += 5.0 * self._field("warp_u", rows)
        v += 5.0 * self._field("warp_v", rows)
        scale = 1 + limb.taper_per_mm * z
        from_axis = np.hypot(u, v * np.float32(limb.flatness))
        surface = self._field("tumour_surface", rows)
        shape = _tumour_distance(tumour, x, y, z)
        mass: _Array32 = (shape + tumour.roughness_mm * surface).astype(np.float32)
        skin = np.asarray(from_axis - limb.radius_mm * scale, dtype=np.float32)
        body = _smooth_min(skin, mass - np.float32(0.5 * limb.fat_mm + 3.0), 14.0)

        thickness = limb.fat_mm * (1 + 0.25 * self._field("fat_thickness", rows))
        muscle = from_axis - limb.radius_mm * scale + thickness
        image = self._fat(rows)
        _blend(image, *self._muscles(u, v, z, muscle, rows))
        self._vessels(image, u, v, z)

        rim = tumour.rim_mm * self._field("septa", rows)
        _blend(image, tissues.fat, _cover(np.abs(mass - 0.5 * tumour.rim_mm) - rim, edge))
        _blend(image, self._mass_values(mass, rows), _cover(mass, max(edge, tumour.edge_mm)))
        bone = np.full_like(mass, np.inf)
        for tube in limb.bones:
            distance = _tube_distance(tube, u, v, z)
            _blend(image, tissues.cortex, _cover(distance, edge))
            _blend(image, tissues.marrow, _cover(distance + limb.cortex_mm, 1.5 * edge))
            np.minimum(bone, distance, out=bone)
        _blend(image, tissues.skin, _cover(-body - limb.skin_mm, edge))
        _blend(image, tissues.air, _cover(-body, edge))
        if modality == "CT":
            self._table(image, x, y)
        else:
            image *= 1 + 0.06 * self._field("bias", rows)
        return image, np.maximum(np.maximum(mass, -bone), body)

    def _positions(self, rows: slice) -> tuple[_Array32, _Array32, _Array32]:
        """RAS mm from the zero of the anatomy, each (rows, H, W)."""
        _, num_h, num_w = self._grid.shape_dhw
        box = VoxelBox((rows.start, 0, 0), (rows.stop, num_h, num_w))
        offsets = self._grid.offsets_ras_mm(box, WorldPointRAS.of(self._centre))
        x, y, z = (offset.astype(np.float32) for offset in offsets)
        return x, y, z

    def _field(self, name: str, rows: slice) -> _Array32:
        field = getattr(self._anatomy.fields, name)
        sampled: _Array32 = field.sample(self._grid, self._centre, rows)
        return sampled

    def _fat(self, rows: slice) -> _Array32:
        tissues = self._tissues
        strands = np.exp(-((self._field("strands", rows) / np.float32(0.09)) ** 2))
        image: _Array32 = tissues.fat + np.float32(0.6 * (tissues.strand - tissues.fat)) * strands
        return image

    def _muscles(
        self, u: _Array32, v: _Array32, z: _Array32, fascia: _Array32, rows: slice
    ) -> tuple[_Array32, _Array32]:
        """Intensity of the muscles, and how much of each voxel is muscle; both (rows, H, W).

        A voxel is muscle inside the fascia and outside the septa between two muscles.
        """
        limb, tissues = self._anatomy.limb, self._tissues
        nearest, gap = _nearest_muscle(limb.muscles, u, v, z)
        shades = np.resize([-1.0, 0.4, -0.3, 1.0, 0.0], len(limb.muscles))
        values = (tissues.muscle + tissues.muscle_spread * shades).astype(np.float32)[nearest]
        fibres = self._field("fibres", rows)
        values += np.float32(tissues.fibre_spread) * fibres
        septum = limb.septum_mm * (0.5 + self._field("septa", rows))
        cover = _cover(fascia, self._edge_mm)
        cover *= 1 - _cover(0.5 * gap - septum, max(self._edge_mm, 1.2))
        # Fat between the fibres: thin streaks along the limb.
        cover *= 1 - 0.25 * np.exp(-(((fibres - 1.8) / np.float32(0.25)) ** 2))
        return values, cover

    def _vessels(self, image: _Array32, u: _Array32, v: _Array32, z: _Array32) -> None:
        for tube in self._anatomy.limb.vessels:
            distance = _tube_distance(tube, u, v, z)
            _blend(image, self._tissues.fat, _cover(distance - 1.2, self._edge_mm))
            _blend(image, self._tissues.vessel, _cover(distance, self._edge_mm))

    def _mass_values(self, mass: _Array32, rows: slice) -> _Array32:
        """Intensity of the tumour, with a darker core where it is necrotic; (rows, H, W)."""
        tumour, tissues = self._anatomy.tumour, self._tissues
        texture = self._field("tumour_texture", rows)
        mean = np.float32(tissues.tumour + tissues.tumour_spread * tumour.contrast)
        values: _Array32 = (mean + np.float32(tissues.tumour_texture) * texture).astype(np.float32)
        if tumour.necrosis > 0:
            core = _cover(mass + 0.6 * tumour.radii_mm[0] + 3.0 * texture, 8.0)
            values -= np.float32(tissues.core_drop * tumour.necrosis) * core
        return values

    def _table(self, image: _Array32, x: _Array32, y: _Array32) -> None:
        """Lay the patient on a thin curved plate; only air gives way to it."""
        limb = self._anatomy.limb
        top = limb.axis_xy_mm[1] - limb.radius_mm - limb.fat_mm - 12.0
        height = y - np.float32(top) - x * x * np.float32(4e-4)
        plate = _cover(np.abs(height + 10) - 10, self._edge_mm)
        shell = plate - _cover(np.abs(height + 10) - 8, self._edge_mm)
        np.maximum(image, -1000 + 60 * plate + 700 * shell, out=image)


def _cover(distance: _Array32, width_mm: float) -> _Array32:
    """How much of a voxel lies on the negative side: 1 to 0 over the width of the edge."""
    cover: _Array32 = distance * np.float32(-1 / width_mm)
    cover += np.float32(0.5)
    return np.clip(cover, 0, 1, out=cover)


def _blend(image: _Array32, value: float | _Array32, cover: _Array32) -> None:
    """Lay a tissue over the image where it covers it, in place."""
    over = np.float32(value) - image if isinstance(value, (int, float)) else value - image
    over *= cover
    image += over


def _smooth_min(a: _Array32, b: _Array32, radius_mm: float) -> _Array32:
    """Minimum of two distances with the crease rounded off."""
    h = np.clip(0.5 + (b - a) * np.float32(0.5 / radius_mm), 0, 1)
    return np.asarray(b + (a - b) * h - np.float32(radius_mm) * h * (1 - h), dtype=np.float32)


def _across_axis(limb: Limb, x: _Array32, y: _Array32, z: _Array32) -> tuple[_Array32, _Array32]:
    """Where a place lies beside the axis of its own leg, mm; the other leg is mirrored."""
    if limb.mirror_x_mm is not None:
        side = np.sign(limb.mirror_x_mm - limb.axis_xy_mm[0])
        x = np.float32(limb.mirror_x_mm) - np.float32(side) * np.abs(x - np.float32(limb.mirror_x_mm))
    u = x - np.float32(limb.axis_xy_mm[0]) - np.float32(limb.tilt_xy[0]) * z
    v = y - np.float32(limb.axis_xy_mm[1]) - np.float32(limb.tilt_xy[1]) * z
    return u, v


def _squared_distance(tube: Tube, u: _Array32, v: _Array32, z: _Array32) -> _Array32:
    next_u = u - np.float32(tube.centre_uv_mm[0]) - np.float32(tube.drift_uv[0]) * z
    next_v = v - np.float32(tube.centre_uv_mm[1]) - np.float32(tube.drift_uv[1]) * z
    next_u *= next_u
    next_v *= next_v
    next_u += next_v
    return next_u


def _tube_distance(tube: Tube, u: _Array32, v: _Array32, z: _Array32) -> _Array32:
    """Distance to the wall of a tube, mm, negative inside."""
    distance = _squared_distance(tube, u, v, z)
    np.sqrt(distance, out=distance)
    distance -= np.float32(tube.radius_mm)
    return distance


def _nearest_muscle(
    muscles: tuple[Tube, ...], u: _Array32, v: _Array32, z: _Array32
) -> tuple[NDArray[np.int8], _Array32]:
    """The muscle that owns each voxel, and how much farther away the next one is, mm."""
    first = np.full(u.shape, np.inf, dtype=np.float32)
    second = first.copy()
    nearest = np.zeros(u.shape, dtype=np.int8)
    for index, tube in enumerate(muscles):
        squared = _squared_distance(tube, u, v, z)
        nearest[squared < first] = index
        np.minimum(second, np.maximum(first, squared), out=second)
        np.minimum(first, squared, out=first)
    return nearest, np.sqrt(second) - np.sqrt(first)


def _tumour_distance(tumour: Tumour, x: _Array32, y: _Array32, z: _Array32) -> _Array32:
    """About the distance to the smooth surface of the mass, mm, negative inside."""
    joined: _Array32 | None = None
    for centre, matrix, radius in zip(tumour.centres_mm, tumour.to_unit_per_mm, tumour.radii_mm, strict=True):
        offset = -matrix @ centre
        squared = np.zeros(x.shape, dtype=np.float32)
        for row, constant in zip(matrix.astype(np.float32), offset, strict=True):
            part = row[0] * x + row[1] * y + row[2] * z
            part += np.float32(constant)
            part *= part
            squared += part
        distance = (np.sqrt(squared) - 1) * np.float32(radius)
        joined = distance if joined is None else _smooth_min(joined, distance, tumour.blend_mm)
    return np.zeros(x.shape, np.float32) if joined is None else joined
