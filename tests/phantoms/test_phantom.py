import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from clickvol.errors import BadGeometryError, ConfigError
from clickvol.geometry.grid import VolumeGrid
from clickvol.phantoms.anatomy import SmoothField, draw_anatomy
from clickvol.phantoms.phantom import make_phantom, render_phantom

SMALL = {"shape_dhw": (40, 48, 52), "spacing_dhw_mm": (4.0, 4.0, 4.0)}


def test_the_same_seed_gives_the_same_scan_and_another_seed_another():
    one, same, other = (make_phantom(seed, **SMALL) for seed in (5, 5, 6))
    assert np.array_equal(one.volume.array, same.volume.array)
    assert np.array_equal(one.truth.array, same.truth.array)
    assert one.inside == same.inside
    assert not np.array_equal(one.truth.array, other.truth.array)


def test_ct_and_mr_of_a_seed_show_the_same_patient():
    ct, mr = (make_phantom(2, modality=m, **SMALL) for m in ("CT", "MR"))
    assert np.array_equal(ct.truth.array, mr.truth.array)
    assert (ct.volume.modality, mr.volume.modality) == ("CT", "MR")


@pytest.mark.parametrize("seed", range(12))
def test_the_click_is_in_the_tumour_which_is_one_piece_in_view(seed):
    phantom = make_phantom(seed, **SMALL)
    d, h, w = (int(v) for v in phantom.inside.as_array())
    assert phantom.truth.array[d, h, w] == 1
    assert phantom.truth.array.dtype == np.uint8
    labels, _ = ndimage.label(phantom.truth.array)
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.max() / sizes.sum() > 0.9


def test_ct_tissues_have_their_hounsfield_units():
    phantom = make_phantom(3)
    hu, tumour = phantom.volume.array, phantom.truth.array == 1
    assert hu.dtype == np.int16
    assert np.median(hu[0, 0, :5]) == pytest.approx(-1000, abs=30)
    inner = ndimage.binary_erosion(tumour, iterations=2)
    assert hu[inner].mean() == pytest.approx(35, abs=15)
    counts, edges = np.histogram(hu, bins=np.arange(-200, 200, 10))
    centres = edges[:-1] + 5
    fat, muscle = counts[centres < -40], counts[centres > 0]
    assert centres[centres < -40][fat.argmax()] == pytest.approx(-105, abs=20)
    assert centres[centres > 0][muscle.argmax()] == pytest.approx(54, abs=15)
    assert np.percentile(hu, 99.8) > 700  # bone


def test_mr_tissues_are_as_on_a_t1_weighted_scan():
    phantom = make_phantom(3, modality="MR")
    values, tumour = phantom.volume.array, phantom.truth.array == 1
    assert values.min() >= 0
    inner = ndimage.binary_erosion(tumour, iterations=2)
    assert values[inner].mean() == pytest.approx(280, abs=60)
    counts, edges = np.histogram(values, bins=np.arange(100, 1300, 20))
    peaks = edges[:-1] + 10
    assert peaks[peaks < 600][counts[peaks < 600].argmax()] == pytest.approx(305, abs=40)
    assert peaks[peaks > 600][counts[peaks > 600].argmax()] == pytest.approx(1000, abs=80)


@pytest.mark.parametrize("diameter", [20, 60, 150])
def test_the_diameter_asked_for_is_about_the_longest_extent(diameter):
    spacing = max(1.0, diameter / 30)
    extents = []
    for seed in range(4):
        phantom = make_phantom(
            seed,
            shape_dhw=(60, 60, 60),
            spacing_dhw_mm=(spacing * 1.2,) * 3,
            tumour_diameter_mm=diameter,
        )
        points = np.argwhere(phantom.truth.array) * spacing * 1.2
        extents.append(np.linalg.norm(points - points.mean(axis=0), axis=1).max() * 2)
    assert 0.75 * diameter < np.mean(extents) < 1.4 * diameter


def test_another_grid_sees_the_same_patient():
    anatomy = draw_anatomy(np.random.default_rng(4), view_xyz_mm=(160, 160, 160), tumour_diameter_mm=60)
    straight = VolumeGrid((40, 40, 40), _centred(np.diag([4.0, 4.0, 4.0]), 40))
    turn = np.array([[0, 0.8, -0.6], [0, 0.6, 0.8], [1, 0, 0]])
    oblique = VolumeGrid((60, 60, 60), _centred(turn * 3.0, 60))
    volumes = [
        render_phantom(
            anatomy, grid, centre_ras_mm=np.zeros(3), modality="CT", rng=np.random.default_rng(0)
        ).truth
        for grid in (straight, oblique)
    ]
    assert volumes[0].volume_ml == pytest.approx(volumes[1].volume_ml, rel=0.05)
    centroids = [
        m.grid.affine_ras_mm[:3, :3] @ np.argwhere(m.array).mean(axis=0) + m.grid.affine_ras_mm[:3, 3]
        for m in volumes
    ]
    assert np.abs(centroids[0] - centroids[1]).max() < 1.0


def _centred(axes, count):
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ np.full(3, (count - 1) / 2)
    return affine


def test_an_affine_given_is_the_affine_of_the_scan():
    affine = _centred(np.array([[0, 0, 3.0], [0, -3.0, 0], [3.0, 0, 0]]), 40)
    phantom = make_phantom(1, shape_dhw=(40, 41, 42), affine_ras_mm=affine)
    assert phantom.volume.array.shape == (40, 41, 42)
    assert np.array_equal(phantom.volume.grid.affine_ras_mm, affine)
    assert phantom.truth.grid == phantom.volume.grid


def test_one_slice_is_enough():
    phantom = make_phantom(2, shape_dhw=(1, 64, 64), spacing_dhw_mm=(5, 3, 3))
    assert phantom.truth.num_voxels > 0


def test_voxels_too_large_for_the_tumour_are_refused():
    with pytest.raises(ConfigError, match="no voxel"):
        make_phantom(0, shape_dhw=(2, 2, 2), spacing_dhw_mm=(400, 400, 400), tumour_diameter_mm=20)


def test_a_spacing_of_zero_is_refused():
    with pytest.raises(BadGeometryError, match="spacing"):
        make_phantom(0, shape_dhw=(8, 8, 8), spacing_dhw_mm=(0, 1, 1))


def test_a_smooth_field_is_the_same_on_every_grid_and_has_variance_one():
    field = SmoothField.draw(np.random.default_rng(0), (10, 30), num_waves=40)
    coarse = VolumeGrid((30, 32, 34), np.diag([4.0, 4.0, 4.0, 1]))
    fine = VolumeGrid((59, 63, 67), np.diag([2.0, 2.0, 2.0, 1]))
    a = field.sample(coarse, np.zeros(3), slice(0, 30))
    b = field.sample(fine, np.zeros(3), slice(0, 59))
    assert np.abs(a - b[::2, ::2, ::2]).max() < 1e-3
    assert np.abs(a[7:9] - field.sample(coarse, np.zeros(3), slice(7, 9))).max() < 1e-4
    assert a.std() == pytest.approx(1, abs=0.2)
    assert a.mean() == pytest.approx(0, abs=0.2)


def test_importing_it_does_not_import_torch():
    code = "import sys, clickvol.phantoms.phantom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
