from clickvol.cli.progress import show_progress


def test_a_bar_shows_how_much_is_done_and_what_was_last(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with show_progress("evaluating", quiet=False) as advance:
        advance(3, 7, "")
        advance(4, 7, "liver_001")
    err = capfd.readouterr().err
    assert "evaluating" in err
    assert "4/7" in err
    assert "liver_001" in err


def test_nothing_is_shown_when_quiet_or_where_nobody_watches(monkeypatch, capfd):
    with show_progress("evaluating", quiet=False) as advance:
        advance(1, 2, "case")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with show_progress("evaluating", quiet=True) as advance:
        advance(1, 2, "case")
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""
