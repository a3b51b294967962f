"""`clickvol view` before a browser comes: what it refuses, and what it asks of the server."""

import sys
from urllib.parse import parse_qs, urlsplit

import pytest

from clickvol.cli.app import main
from clickvol.cli.view import root_of

running = pytest.importorskip("clickvol.server.http.running")


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Take the server's place; what it would have been told lies in the dictionary."""
    seen = {"opened": []}

    def run_server(settings, *, model, device, on_ready, propose):
        seen.update(settings=settings, model=model, device=device, propose=propose)
        on_ready("http://127.0.0.1:4321/")
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run_server", run_server)
    monkeypatch.setattr("webbrowser.open", seen["opened"].append)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return seen


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "patient" / "ct.nii.gz"
    path.parent.mkdir()
    path.write_bytes(b"not looked at here")
    return path


def test_the_server_is_for_this_machine_and_the_folder_of_the_scan(asked, scan):
    assert main(["view", str(scan), "--model", "some-model", "--device", "cpu"]) == 0
    settings = asked["settings"]
    assert settings.host == "127.0.0.1"
    assert settings.port == 0
    assert settings.root == scan.parent
    assert settings.start_path == scan
    assert (asked["model"], asked["device"], asked["propose"]) == ("some-model", "cpu", None)


def test_the_browser_gets_the_token_behind_the_hash_and_so_does_the_terminal(asked, scan, capsys):
    assert main(["view", str(scan), "--series", "1.2 & 3"]) == 0
    (address,) = asked["opened"]
    assert capsys.readouterr().out.splitlines()[0] == address
    parts = urlsplit(address)
    assert (parts.netloc, parts.path, parts.query) == ("127.0.0.1:4321", "/", "")
    told = parse_qs(parts.fragment)
    assert told == {"token": [asked["settings"].token], "series": ["1.2 & 3"]}
    assert len(told["token"][0]) >= 32


def test_every_start_has_a_token_of_its_own(asked, scan):
    tokens = set()
    for _ in range(3):
        main(["view", str(scan), "--no-browser"])
        tokens.add(asked["settings"].token)
    assert len(tokens) == 3


def test_no_browser_opens_none(asked, scan):
    assert main(["view", str(scan), "--no-browser"]) == 0
    assert asked["opened"] == []


def test_without_a_scan_the_present_folder_is_served(asked, scan, monkeypatch):
    monkeypatch.chdir(scan.parent)
    assert main(["view"]) == 0
    assert asked["settings"].root == scan.parent
    assert asked["settings"].start_path is None


def test_a_dicom_folder_is_its_own_root(scan):
    assert root_of(scan.parent) == scan.parent


def test_a_link_leads_to_the_folder_of_what_it_names(scan, tmp_path):
    link = tmp_path / "link.nii.gz"
    link.symlink_to(scan)
    assert root_of(link) == scan.parent


def test_no_such_scan(asked, tmp_path, capsys):
    assert main(["view", str(tmp_path / "none.nii.gz")]) == 2
    said = capsys.readouterr().err
    assert "none.nii.gz; give a scan" in said
    assert "settings" not in asked


def test_a_missing_extra_is_one_line(asked, scan, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["view", str(scan)]) == 2
    said = capsys.readouterr().err
    assert 'pip install "clickvol[serve]"' in said
    assert len(said.splitlines()) == 1


def test_the_click_log_goes_where_it_is_told(asked, scan, tmp_path):
    main(["view", str(scan), "--state-folder", str(tmp_path / "kept")])
    assert asked["settings"].state_folder == tmp_path / "kept"


def test_several_scans_are_a_worklist_and_masks_go_beside_them(asked, scan, tmp_path):
    (scan.parent / "second.nii.gz").write_bytes(b"not looked at here")
    assert main(["view", str(scan.parent)]) == 0
    settings = asked["settings"]
    assert (settings.worklist_source, settings.start_path) == (scan.parent, None)
    assert settings.worklist_output == tmp_path / "patient-masks"
    assert main(["view", str(scan.parent), "-o", str(tmp_path / "out")]) == 0
    assert asked["settings"].worklist_output == tmp_path / "out"


def test_a_folder_for_masks_is_refused_for_one_scan(asked, scan, capsys):
    assert main(["view", str(scan), "-o", "out"]) == 2
    assert "for several scans" in capsys.readouterr().err
    assert "settings" not in asked
