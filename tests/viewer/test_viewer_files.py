"""The viewer's files: nothing from elsewhere, nothing inline, colours that can be read."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

VIEWER = Path(__file__).parents[2] / "src" / "clickvol" / "viewer"
OWN = sorted(p for p in VIEWER.glob("*.*") if p.is_file())
SCRIPTS = sorted(VIEWER.glob("*.js"))

# A name space is no address that anything is loaded from.
NAME_SPACES = {"http://www.w3.org/2000/svg"}


class Elements(HTMLParser):
    """The elements of a page, as (name, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page():
    return Elements((VIEWER / "index.html").read_text(encoding="utf-8")).found


def test_there_is_a_page():
    names = {p.name for p in OWN}
    assert {"index.html", "style.css", "app.js", "scene.js", "session.js"} <= names


def test_files_of_our_own_are_short():
    lengths = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in OWN}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_nothing_is_loaded_from_elsewhere():
    found = {
        (path.name, address)
        for path in OWN
        for address in re.findall(r"https?://[^\s\"'`)>]+|(?<=[\"'(])//[^\s\"'`)]+", path.read_text())
        if address not in NAME_SPACES
    }
    assert found == set()


def test_every_import_names_a_file_there_is():
    for path in SCRIPTS:
        for name in re.findall(r'from "([^"]+)"', path.read_text(encoding="utf-8")):
            assert name.startswith("./"), f"{path.name} imports {name}"
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


def test_every_file_is_used():
    text = "".join(p.read_text(encoding="utf-8") for p in OWN)
    assert [p.name for p in OWN if p.name != "index.html" and f"/{p.name}" not in text] == []


def test_the_page_fits_a_policy_without_inline_code(page):
    """The server's Content-Security-Policy forbids inline scripts and styles."""
    assert [a for tag, a in page if tag == "script" and "src" not in a] == []
    assert [tag for tag, _ in page if tag == "style"] == []
    inline = [(tag, n) for tag, a in page for n in a if n == "style" or n.startswith("on")]
    assert inline == []
    scripts = "".join(p.read_text(encoding="utf-8") for p in SCRIPTS)
    assert not re.search(r"innerHTML|insertAdjacentHTML|\beval\(|new Function|document\.write", scripts)


def test_the_page_says_what_it_is(page):
    tags = dict(page)
    assert tags["html"]["lang"] == "en"
    assert "title" in tags
    assert {"main", "header", "footer", "aside", "noscript"} <= set(tags)
    assert "Research use only, not a medical device" in (VIEWER / "index.html").read_text()


def test_every_id_that_scripts_ask_for_is_in_the_page(page):
    ids = [a["id"] for _, a in page if "id" in a]
    assert sorted(ids) == sorted(set(ids))
    text = "".join(p.read_text(encoding="utf-8") for p in SCRIPTS)
    asked = set(re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', text))
    assert len(asked) > 25
    assert asked <= set(ids)


def test_labels_name_what_they_label(page):
    ids = {a["id"] for _, a in page if "id" in a}
    for _, attributes in page:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "").split()) <= ids


def test_the_vendored_file_is_the_one_that_the_notice_names():
    notice = (VIEWER / "vendor" / "THIRD_PARTY.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"`([0-9a-f]{64})`", notice)
    assert hashlib.sha256((VIEWER / "vendor" / "niivue.js").read_bytes()).hexdigest() == named
    for part in ("NiiVue", "fflate", "gl-matrix", "nifti-reader-js", "zarrita", "numcodecs"):
        assert f"## {part}" in notice
    for part in ("array-equal", "@ungap/structured-clone", "@lukeed/uuid", "C-Blosc", "Zstandard"):
        assert f"## {part}" in notice


def luminance(colour):
    """Return the relative luminance of "#rrggbb" (WCAG 2.2, its definition of the term)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_wcag_does():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.fixture(scope="module")
def colours():
    style = (VIEWER / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", style))


@pytest.mark.parametrize("ground", ["ground", "panel", "raised"])
@pytest.mark.parametrize("ink", ["text", "soft", "accent", "warn", "bad"])
def test_words_can_be_read(colours, ink, ground):
    assert contrast(colours[ink], colours[ground]) >= 4.5


def test_further_colours_can_be_read(colours):
    style = (VIEWER / "style.css").read_text(encoding="utf-8")
    inks = set(re.findall(r"[; {]color: (#[0-9a-f]{6})", style))
    assert inks
    for ink in inks:
        assert contrast(ink, colours["raised"]) >= 4.5, ink
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    # Edges of controls (WCAG 1.4.11).
    assert contrast(colours["line-strong"], colours["panel"]) >= 3


def test_objects_have_colours_that_stand_out():
    state = (VIEWER / "state.js").read_text(encoding="utf-8")
    (table,) = re.findall(r"COLOURS = \[(.*?)\]", state, flags=re.DOTALL)
    found = re.findall(r"#[0-9a-f]{6}", table)
    assert len(set(found)) == 8
    assert all(contrast(colour, "#10141b") >= 4.5 for colour in found)
