import pytest

from clickvol.server.refusal import RefusedError
from clickvol.server.scans import find_under_root, scan_suffix


@pytest.fixture
def folder(tmp_path):
    """A root with a scan, and things beside it that are nobody's business."""
    root = tmp_path / "root"
    (root / "case").mkdir(parents=True)
    for place in (root / "a.nii.gz", root / "case" / "b.nrrd", root / "notes.txt"):
        place.write_bytes(b"x")
    (tmp_path / "secret.nii.gz").write_bytes(b"x")
    (tmp_path / "root-too").mkdir()
    (tmp_path / "root-too" / "c.nii").write_bytes(b"x")
    return root


@pytest.mark.parametrize("text", ["a.nii.gz", "./case/../a.nii.gz", "case/b.nrrd", "case"])
def test_what_lies_under_the_root_is_found(folder, text):
    assert find_under_root(folder, text) == (folder / text).resolve()


def test_an_absolute_path_under_the_root_is_found(folder):
    assert find_under_root(folder, str(folder / "a.nii.gz")) == folder / "a.nii.gz"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("../secret.nii.gz", 403),
        ("/etc/passwd", 403),
        ("case/../../secret.nii.gz", 403),
        ("../root-too/c.nii", 403),
        ("..", 403),
        ("nothing.nii.gz", 404),
        ("x" * 5000, 404),
        ("a\0.nii.gz", 404),
        ("notes.txt", 415),
    ],
)
def test_all_else_is_refused(folder, text, status):
    with pytest.raises(RefusedError) as refused:
        find_under_root(folder, text)
    assert refused.value.status == status


def test_links_that_lead_out_are_refused(folder):
    (folder / "link.nii.gz").symlink_to(folder.parent / "secret.nii.gz")
    (folder / "linked").symlink_to(folder.parent / "root-too")
    (folder / "case" / "0001.dcm").symlink_to(folder.parent / "secret.nii.gz")
    for text in ("link.nii.gz", "linked", "linked/c.nii", "case"):
        with pytest.raises(RefusedError) as refused:
            find_under_root(folder, text)
        assert refused.value.status == 403, text


def test_links_that_stay_inside_are_followed(folder):
    (folder / "link.nii.gz").symlink_to(folder / "a.nii.gz")
    assert find_under_root(folder, "link.nii.gz") == folder / "a.nii.gz"


def test_a_root_that_is_a_link_is_a_root(folder):
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert find_under_root(link, "a.nii.gz") == folder / "a.nii.gz"


def test_without_a_root_nothing_is_opened_by_path(folder):
    with pytest.raises(RefusedError, match="upload the scan"):
        find_under_root(None, str(folder / "a.nii.gz"))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("Meier.NII.GZ", ".nii.gz"), ("a.nii", ".nii"), ("x.zip", ".zip"), ("c:\\x\\a.mha", ".mha")],
)
def test_only_the_suffix_of_a_name_is_kept(name, suffix):
    assert scan_suffix(name) == suffix


@pytest.mark.parametrize("name", ["", "nii.gz", ".nii.gz", "a.nhdr", "a.mhd", "a.nii.gz.exe", "a.gz"])
def test_other_names_are_no_scans(name):
    with pytest.raises(RefusedError) as refused:
        scan_suffix(name)
    assert refused.value.status == 415
