"""The wheel has what the package needs, and nothing else; what it has runs outside of the repository."""

import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

import pytest

from clickvol.version import __version__

ROOT = Path(__file__).parents[1]
INFO = f"clickvol-{__version__}.dist-info"

# Folder of the package: what lies in it beside Python files.
DATA = {
    "clickvol": {"py.typed"},
    "clickvol/datasets/published": {".toml", ".json"},
    "clickvol/evaluation/protocols": {".toml"},
    "clickvol/image_encoders": {".toml"},
    "clickvol/io": {".toml"},
    "clickvol/io/dicom": {".toml"},
    "clickvol/bridges": {".txt"},
    "clickvol/report": {".txt"},
    "clickvol/reproduction/published": {".toml"},
    "clickvol/reproduction/studies": {".toml"},
    "clickvol/weights": {".toml"},
    "clickvol/weights/shipped": {".json", ".safetensors", ".md"},
    "clickvol/viewer/vendor": {".js", ".md"},
}
CONFIGS, VIEWER = {".toml", ".json"}, {".js", ".css", ".html", ".svg"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    assert path.name == f"clickvol-{__version__}-py3-none-any.whl"
    return path


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        counted = Counter(archive.namelist())
    assert set(counted.values()) == {1}
    return {PurePosixPath(name) for name in counted}


def test_every_module_and_every_configuration_is_in_it(names):
    modules = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.py")}
    assert {str(name) for name in names if name.suffix == ".py"} == modules
    configs = {p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*.*")}
    assert {str(name.relative_to("clickvol")) for name in names if "configs" in name.parts[:2]} == configs


def test_nothing_else_is_in_it_but_weights_viewer_tables_and_licences(names):
    for name in names:
        folder = str(name.parent)
        if folder.startswith(INFO):
            continue
        known = DATA.get(folder, set())
        known = known or (
            CONFIGS if "configs" in name.parts[:2] else VIEWER if "viewer" in name.parts[:2] else set()
        )
        assert name.suffix == ".py" or {name.suffix, name.name} & known, name
    info = {str(name.relative_to(INFO)) for name in names if name.parts[0] == INFO}
    assert info == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
    needed = {
        "weights/shipped/promise3d-small.safetensors",
        "viewer/index.html",
        "viewer/vendor/THIRD_PARTY.md",
    }
    assert {f"clickvol/{name}" for name in needed} <= {str(name) for name in names}


def test_its_metadata_name_extras_licence_and_python(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = BytesParser().parsebytes(archive.read(f"{INFO}/METADATA"))
        assert b"clickvol = clickvol.cli.app:main" in archive.read(f"{INFO}/entry_points.txt")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"train", "evaluate", "serve", "dicom", "zarr", "archive"} <= set(metadata.get_all("Provides-Extra"))
    # The page that an index shows: a link into the repository leads nowhere there.
    page = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Research use only: this is not\na medical device." in page
    assert re.findall(r"\]\((?!https:)", page) == []
    assert "in the viewer" not in page.split("make demo")[0]
    assert "Presets, sizes and every difference between paper, code and our form: fidelity;" in page


@pytest.mark.slow
def test_what_it_has_runs_where_the_repository_is_not(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    (tmp_path / "elsewhere").mkdir()
    program = (
        "import sys, clickvol; from clickvol.cli.app import main; from clickvol.weights.card import list_cards;"
        f"assert clickvol.__file__.startswith({str(tmp_path)!r});"
        "assert 'promise3d-small' in [card.id for card in list_cards()];"
        "from clickvol.server.viewer.files import VIEWER_FOLDER;"
        "assert (VIEWER_FOLDER / 'index.html').is_file();"
        "sys.exit(main(['configs']) or main(['train', 'configs/smoke.toml', '--steps', '1']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked"), "HOME": str(tmp_path / "elsewhere")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "configs/own-data.toml" in done.stdout
