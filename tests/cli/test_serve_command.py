"""What is wrong with the words is said before a model is loaded; the server itself is in tests/server."""

from pathlib import Path

import pytest


@pytest.fixture
def served(monkeypatch):
    """What the command would serve."""
    calls = []

    def run_server(settings, **words):
        calls.append((settings, words))
        words["on_ready"]("http://127.0.0.1:8000/")

    monkeypatch.setattr("clickvol.server.http.running.run_server", run_server)
    monkeypatch.setattr("clickvol.server.http.running.log_to_stderr", lambda **_: None)
    monkeypatch.delenv("CLICKVOL_TOKEN", raising=False)
    return calls


def test_alone_it_is_for_this_machine(run, served, tmp_path):
    done = run("serve", "--state-folder", tmp_path)
    assert done.code == 0
    assert done.out == "http://127.0.0.1:8000/\n"
    assert "not a medical device" in done.err
    ((settings, words),) = served
    assert (settings.host, settings.token, settings.root) == ("127.0.0.1", None, None)
    assert (words["model"], words["device"]) == (None, "auto")


def test_the_words_become_settings(run, served, tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_TOKEN", "token-of-the-environment")
    words = ("--host", "0.0.0.0", "--port", "9000", "--root", tmp_path, "--sessions", "3")
    words += ("--lease-minutes", "2", "--max-upload-mb", "7", "--max-voxels", "1000")
    words += ("--memory-mb", "99", "--allow-host", "a.example", "--model", "m", "--device", "cpu")
    words += ("--allow-origin", "https://o.example/", "--state-folder", tmp_path / "state")
    words += ("--root-path", "/clickvol/", "--trusted-proxy", "10.0.0.1", "--trusted-proxy", "10.1.0.0/16")
    words += ("--tls-cert", "c.pem", "--tls-key", "k.pem", "--log-format", "json")
    words += ("--dicomweb", "dicomweb://pacs.example/dicom-web", "--labels", tmp_path / "l", "--store-labels")
    done = run("serve", *words)
    assert done.code == 0
    assert "token-of-the-environment" not in done.out + done.err
    ((settings, call),) = served
    assert (settings.port, settings.root, settings.max_sessions) == (9000, tmp_path, 3)
    assert (settings.lease_seconds, settings.max_upload_mb, settings.max_voxels) == (120, 7, 1000)
    assert (settings.memory_mb, settings.allowed_hosts) == (99, ("a.example",))
    assert (settings.labels, settings.store_labels) == (tmp_path / "l", True)
    assert settings.dicomweb == "dicomweb://pacs.example/dicom-web"
    assert settings.allowed_origins == ("https://o.example",)
    assert settings.token == "token-of-the-environment"
    assert (settings.root_path, settings.trusted_proxies) == ("/clickvol", ("10.0.0.1", "10.1.0.0/16"))
    assert (settings.tls_certificate, settings.tls_key) == (Path("c.pem"), Path("k.pem"))
    assert (call["model"], call["device"]) == ("m", "cpu")


def test_for_others_it_makes_a_token_of_its_own(run, served, tmp_path):
    done = run("serve", "--host", "0.0.0.0", "--state-folder", tmp_path)
    ((settings, _),) = served
    assert done.out == f"http://127.0.0.1:8000/#token={settings.token}\n"
    assert len(settings.token) == 43


def test_the_token_of_a_file_comes_first(run, served, tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_TOKEN", "token-of-the-environment")
    (tmp_path / "token").write_text("token-of-the-file-here\n")
    run("serve", "--token-file", tmp_path / "token", "--state-folder", tmp_path)
    assert served[0][0].token == "token-of-the-file-here"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--token-file", "nowhere"), "cannot read a token"),
        (("--root", "nowhere"), "not a folder"),
        (("--port", "70000"), "65535"),
        (("--sessions", "0"), "sessions"),
        (("--root-path", "clickvol"), "/clickvol"),
        (("--trusted-proxy", "10.0.0.1"), "needs a token"),
        (("--tls-key", "key.pem"), "certificate"),
        (
            ("--worklist", "nowhere.csv"),
            "there is no nowhere.csv; give a CSV file as for clickvol batch",
        ),
        (("--worklist-output", "out"), "--worklist-output is for a worklist; give --worklist, too"),
    ],
)
def test_mistakes_are_one_line(run, served, tmp_path, words, said):
    done = run("serve", "--state-folder", tmp_path, *words)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert served == []


def test_a_worklist_has_its_masks_where_they_are_asked_for(run, served, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for words, output in (((), "scans-masks"), (("--worklist-output", tmp_path / "out"), "out")):
        assert run("serve", "--state-folder", tmp_path, "--worklist", scans, *words).code == 0
        settings, _ = served.pop()
        assert (settings.worklist_source, settings.worklist_output) == (scans, tmp_path / output)


def test_an_empty_token_in_the_environment_is_none(run, served, tmp_path, monkeypatch):
    monkeypatch.setenv("CLICKVOL_TOKEN", "")
    run("serve", "--state-folder", tmp_path)
    assert served[0][0].token is None
