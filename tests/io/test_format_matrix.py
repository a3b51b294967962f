"""Every format with every trouble and compression: what other programs read of a file, and what is refused.

The values and places come from nibabel and SimpleITK, which know nothing of our readers.
"""

import gzip
import shutil
import struct
import subprocess

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import zstandard

from clickvol.errors import BadGeometryError, ClickvolError, OutputError, UnreadableVolumeError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import WRITABLE_SUFFIXES, read_volume, write_volume

LPS = np.diag([-1.0, -1, 1, 1])
VALUES = (np.arange(120).reshape(4, 5, 6) * 7 - 300).astype(np.int16)

NIFTI = [".nii", ".nii.gz", ".nii.zst", ".hdr"]
ITK = [".nrrd", ".nrrd gzip", ".nhdr", ".nhdr gzip", ".mha", ".mha gzip", ".mhd", ".mhd gzip"]
FORMATS = [*NIFTI, ".mgz", *ITK]


def affine_of(kind):
    """Return an affine of (i, j, k) in RAS mm."""
    axes = {
        "plain": np.eye(3),
        "flipped": np.diag([-1.0, 1, -1]),
        "permuted": np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]]),
        "oblique": np.linalg.qr(np.array([[3.0, 1, 0.5], [-1, 2, 1], [0, -1, 4]]))[0],
    }
    affine = np.eye(4)
    affine[:3, :3] = axes.get(kind, np.eye(3)) * [0.7, 1.3, 5.0]
    affine[:3, 3] = [-101.25, 55.5, 733.125]
    return affine


def write_foreign(folder, form, values, affine, *, big_endian=False):
    """Write a scan by another program, and return its path."""
    suffix, _, packed = form.partition(" ")
    path = folder / f"scan{suffix}"
    if form in ITK:
        image = sitk.GetImageFromArray(values)
        lps = LPS @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        sitk.WriteImage(image, str(path), useCompression=bool(packed))
        return path
    if suffix == ".mgz":
        nib.save(nib.MGHImage(values.T, affine), path)
        return path
    header = (nib.Nifti1Header if suffix != ".hdr" else nib.nifti1.Nifti1PairHeader)(
        endianness=">" if big_endian else "<"
    )
    header.set_data_dtype(values.dtype)
    image = (nib.Nifti1Pair if suffix == ".hdr" else nib.Nifti1Image)(values.T, affine, header)
    plain = path.with_name("scan.nii") if suffix == ".nii.zst" else path
    nib.save(image, plain)
    if suffix == ".nii.zst":
        path.write_bytes(zstandard.compress(plain.read_bytes()))
        plain.unlink()
    return path


def read_foreign(path):
    """Return what another program reads: (D, H, W), and the affine of (i, j, k) in RAS mm."""
    if path.name.endswith((".nrrd", ".nhdr", ".mha", ".mhd")):
        image = sitk.ReadImage(str(path))
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        return sitk.GetArrayFromImage(image), LPS @ affine
    if path.name.endswith(".zst"):
        plain = path.with_name("unpacked.nii")
        plain.write_bytes(zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).readall())
        path = plain
    image = nib.load(path)
    return np.asarray(image.dataobj).T, image.affine


def assert_same(volume, path):
    values, affine = read_foreign(path)
    np.testing.assert_array_equal(volume.array, values)
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm, affine, atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["plain", "flipped", "permuted", "oblique", "one slice", "uint8", "float32"])
def test_a_good_file_is_read_as_others_read_it(tmp_path, form, kind):
    dtype = kind if kind in ("uint8", "float32") else "int16"
    values = (VALUES[:1] if kind == "one slice" else VALUES).astype(dtype)
    path = write_foreign(tmp_path, form, values, affine_of(kind))
    volume = read_volume(path)
    assert volume.array.dtype == values.dtype
    np.testing.assert_array_equal(volume.array, values)
    assert volume.notes == ()
    assert_same(volume, path)


@pytest.mark.parametrize("form", [*NIFTI, ".mgz", ".nrrd", ".mha"])
@pytest.mark.parametrize("name", ["SCAN", "sçan with spaces", "a.b.c", "-scan"])
def test_a_name_is_a_name(tmp_path, form, name):
    path = write_foreign(tmp_path, form, VALUES, affine_of("plain"))
    suffix = form.upper() if name == "SCAN" else form
    if form == ".hdr":
        path.with_suffix(".img").rename(tmp_path / f"{name}{'.IMG' if name == 'SCAN' else '.img'}")
    path = path.rename(tmp_path / f"{name}{suffix}")
    np.testing.assert_array_equal(read_volume(path).array, VALUES)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("trouble", ["empty", "another format", "header cut off", "voxels cut off", "a folder"])
def test_a_broken_file_is_refused_in_one_true_line(tmp_path, form, trouble):
    path = write_foreign(tmp_path, form, VALUES, affine_of("plain"))
    content = path.read_bytes()
    if trouble == "a folder":
        path.unlink()
        path.mkdir()
    elif trouble == "voxels cut off" and form.startswith((".hdr", ".nhdr", ".mhd")):
        data = next(p for p in tmp_path.iterdir() if p != path)
        data.write_bytes(data.read_bytes()[:-20])
    else:
        cut = {"empty": 0, "header cut off": 50, "voxels cut off": len(content) - 30}.get(trouble)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 900 if cut is None else content[:cut])
    with pytest.raises(ClickvolError) as caught:
        read_volume(path)
    text = str(caught.value)
    assert path.stem in text  # of a pair it may be the other file
    assert "\n" not in text
    assert "unexpected" not in text


def change_nifti(path, offset, code, *values):
    """Change numbers of a NIfTI header, packed or not."""
    pack, unpack = {
        ".gz": (gzip.compress, gzip.decompress),
        ".zst": (zstandard.compress, zstandard.decompress),
    }.get(path.suffix, (bytes, bytes))
    content = bytearray(unpack(path.read_bytes()))
    struct.pack_into(f"<{code}", content, offset, *values)
    path.write_bytes(pack(bytes(content)))


@pytest.mark.parametrize("form", NIFTI)
@pytest.mark.parametrize(
    ("trouble", "change", "note"),
    [
        ("scaled", (112, "2f", 2.0, -5.0), None),
        ("forms apart", (292, "f", -91.25), "lie up to 10 mm apart"),
        ("no forms", (252, "2h", 0, 0), "no orientation in the header"),
        ("strange code", (254, "h", 77), "sform_code 77"),
        ("metres", (123, "B", 1), "in metres"),
        ("big endian", None, None),
    ],
)
def test_a_header_with_a_trouble_is_read_with_a_note(tmp_path, form, trouble, change, note):
    path = write_foreign(tmp_path, form, VALUES, affine_of("plain"), big_endian=change is None)
    if trouble == "forms apart":
        change_nifti(path, 252, "h", 1)
    if change is not None:
        change_nifti(path, *change)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VALUES * 2.0 - 5 if trouble == "scaled" else VALUES)
    if trouble != "strange code":  # which nibabel takes for one
        assert_same(volume, path)
    assert any(note in n for n in volume.notes) if note else not volume.notes


@pytest.mark.parametrize("form", NIFTI)
@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ((40, "8h", 3, 6, 0, 4, 1, 1, 1, 1), UnreadableVolumeError, "0|shape"),
        ((40, "8h", 3, 6, -5, 4, 1, 1, 1, 1), UnreadableVolumeError, "dim|shape|damaged"),
        ((40, "8h", 3, 6, 5, 400, 1, 1, 1, 1), UnreadableVolumeError, "truncated|damaged|cut off"),
        ((70, "h", 128), UnreadableVolumeError, "colour|voxels"),
        ((70, "h", 32), UnreadableVolumeError, "complex"),
        ((70, "h", 9999), UnreadableVolumeError, "unknown data type|damaged"),
        ((80, "f", 0.0), BadGeometryError, "spacing"),
        ((80, "f", float("nan")), BadGeometryError, "spacing"),
        ((280, "f", float("inf")), BadGeometryError, "finite"),
    ],
)
def test_a_nifti_header_that_cannot_be_is_refused(tmp_path, form, change, error, reason):
    path = write_foreign(tmp_path, form, VALUES, affine_of("plain"))
    change_nifti(path, *change)
    with pytest.raises(error, match=reason) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ITK)
@pytest.mark.parametrize("trouble", ["no spacing", "NaN spacing", "zero spacing", "two axes", "vectors"])
def test_an_itk_header_with_a_trouble(tmp_path, form, trouble):
    path = write_foreign(tmp_path, form, VALUES, affine_of("plain"))
    nrrd = form.startswith((".nrrd", ".nhdr"))
    content = path.read_bytes()
    name = b"space directions:" if nrrd else b"ElementSpacing ="
    at = content.index(name)
    end = content.index(b"\n", at)
    if trouble == "no spacing":
        changed = content[:at] + content[end + 1 :]
    elif trouble in ("NaN spacing", "zero spacing"):
        word = b"nan" if trouble.startswith("NaN") else b"0"
        value = b" (%s,0,0) (0,1.3,0) (0,0,5)" % word if nrrd else b" %s 1.3 5" % word
        changed = content[: at + len(name)] + value + content[end:]
    elif trouble == "two axes":
        sitk.WriteImage(sitk.GetImageFromArray(VALUES[0]), str(path))
        changed = path.read_bytes()
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([VALUES] * 3, -1), isVector=True), str(path))
        changed = path.read_bytes()
    path.write_bytes(changed)
    if trouble == "two axes":
        assert read_volume(path).array.shape == (1, 5, 6)
        return
    if trouble == "no spacing":
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, VALUES)
        assert "no voxel spacing" in volume.notes[0]
        return
    with pytest.raises(
        ClickvolError, match="values per voxel" if trouble == "vectors" else "spacing|direction"
    ):
        read_volume(path)


@pytest.mark.parametrize("form", [".nii.gz", ".nii.zst", ".mgz"])
def test_bytes_behind_a_packed_stream_are_no_damage(tmp_path, form):
    path = write_foreign(tmp_path, form, VALUES, affine_of("plain"))
    path.write_bytes(path.read_bytes() + b"\0" * 64)
    np.testing.assert_array_equal(read_volume(path).array, VALUES)


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
@pytest.mark.parametrize("kind", ["plain", "flipped", "permuted", "oblique"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_others_read_what_is_written(tmp_path, suffix, kind, dtype):
    grid = VolumeGrid.from_ijk((6, 5, 4), affine_of(kind))
    array = (VALUES + 300).clip(0, 255).astype(dtype) + (0.25 if dtype.startswith("f") else 0)
    array = array.astype(dtype)
    if (suffix, dtype) == (".mgz", "float64"):
        with pytest.raises(OutputError, match="float64"):
            write_volume(array, grid, tmp_path / f"a{suffix}")
        return
    write_volume(array, grid, tmp_path / f"a{suffix}")
    values, affine = read_foreign(tmp_path / f"a{suffix}")
    assert values.dtype.newbyteorder("=") == ("int32" if (suffix, dtype) == (".mgz", "uint16") else dtype)
    np.testing.assert_array_equal(values, array)
    np.testing.assert_allclose(affine, grid.affine_ijk_ras_mm, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir() if p.name != "unpacked.nii"] == [f"a{suffix}"]
    assert read_volume(tmp_path / f"a{suffix}").grid.same_place(grid)


@pytest.mark.parametrize("suffix", [s for s in WRITABLE_SUFFIXES if s != ".nii"])
def test_a_higher_level_makes_a_smaller_file_with_the_same_content(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 4, (20, 40, 40)).astype(np.uint8)
    grid = VolumeGrid.axial((20, 40, 40), (2.0, 1.0, 1.0))
    sizes = []
    for level in (0, 1, 9):
        path = tmp_path / f"{level}{suffix}"
        write_volume(noise, grid, path, compression_level=level)
        np.testing.assert_array_equal(read_foreign(path)[0], noise)
        sizes.append(path.stat().st_size)
    assert sizes[2] < sizes[1]
    assert sizes[1] < sizes[0] or suffix == ".nii.zst"  # which packs always
    assert sizes[0] >= noise.size or suffix == ".nii.zst"
    write_volume(noise, grid, tmp_path / f"default{suffix}")
    assert (tmp_path / f"default{suffix}").stat().st_size == sizes[1]


@pytest.mark.parametrize(("suffix", "level"), [(".nii.gz", 10), (".nii.gz", -1), (".nii", 5), (".nii", 0)])
def test_a_level_that_cannot_be_is_refused(tmp_path, suffix, level):
    grid = VolumeGrid.axial((4, 5, 6), (2.0, 1.0, 1.0))
    with pytest.raises(OutputError, match="compress"):
        write_volume(VALUES, grid, tmp_path / f"a{suffix}", compression_level=level)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_plastimatch_reads_what_is_written(tmp_path, suffix):
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed")
    grid = VolumeGrid.from_ijk((6, 5, 4), affine_of("flipped"))
    write_volume(VALUES, grid, tmp_path / f"a{suffix}")
    command = ["plastimatch", "convert", "--input", tmp_path / f"a{suffix}", "--output-type", "float"]
    done = subprocess.run([*command, "--output-img", tmp_path / "b.mha"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    values, affine = read_foreign(tmp_path / "b.mha")
    np.testing.assert_array_equal(values, VALUES)
    np.testing.assert_allclose(affine, grid.affine_ijk_ras_mm, atol=1e-4)
