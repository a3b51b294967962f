"""The viewer's files: nothing from elsewhere, nothing inline, colours that can be read."""

import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

VIEWER = Path(__file__).parents[2] / "src" / "clickvol" / "viewer"
OWN = sorted(p for p in VIEWER.rglob("*.*") if p.is_file() and p.parent.name != "vendor")
SCRIPTS = [p for p in OWN if p.suffix == ".js"]

# A name space is no address that anything is loaded from.
NAME_SPACES = {"http://www.w3.org/2000/svg"}


class Elements(HTMLParser):
    """The elements of a page, as (name, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page():
    return Elements((VIEWER / "index.html").read_text(encoding="utf-8")).elements


def test_there_is_a_page():
    names = {p.name for p in OWN}
    assert {"index.html", "style.css", "app.js", "scene.js", "session.js"} <= names


def test_files_of_our_own_are_short():
    lengths = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in OWN}
    assert {name: n for name, n in lengths.items() if n > 500} == {}


def test_nothing_is_loaded_from_elsewhere():
    result = {
        (path.name, address)
        for path in OWN
        for address in re.findall(r"https?://[^\s\"'`)>]+|(?<=[\"'(])//[^\s\"'`)]+", path.read_text())
        if address not in NAME_SPACES
    }
    assert result == set()


def test_every_import_names_a_file_there_is():
    for path in SCRIPTS:
        for name in re.findall(r'from "([^"]+)"', path.read_text(encoding="utf-8")):
            assert name.startswith("."), f"{path.name} imports {name}"
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


def test_no_folder_holds_more_files_than_one_can_survey():
    folders = {path.parent for path in OWN}
    assert {str(f): n for f in folders if (n := sum(path.parent == f for path in SCRIPTS)) > 16} == {}


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


class Words(HTMLParser):
    """What of a page is read: its texts, and the titles and names of its controls."""

    def __init__(self, text):
        super().__init__()
        self.words = set()
        self.feed(text)

    def handle_data(self, data):
        self.words.add(data.strip())

    def handle_starttag(self, tag, attrs):
        self.words |= {value for name, value in attrs if name in ("title", "aria-label", "placeholder", "alt")}


# The same in every language.
NO_WORDS = {"", "clickvol", "+", "\u2212", "?", "patient-07/ct.nii.gz", "patient-07/mask.nii.gz"}
TEXT = r'"((?:[^"\\]|\\.)*)"'


def german():
    """Return the keys of the German table, as they are written."""
    table = (VIEWER / "strings" / "german.js").read_text(encoding="utf-8")
    return {a or b for a, b in re.findall(rf"^  (?:{TEXT}|(\w+)):", table, flags=re.MULTILINE)}


def test_every_text_is_there_in_german():
    page = Words((VIEWER / "index.html").read_text(encoding="utf-8")).words
    scripts = "".join(p.read_text(encoding="utf-8") for p in SCRIPTS)
    asked = set(re.findall(rf"\bt\(\s*{TEXT}", scripts)) | set(re.findall(rf"\bsays: {TEXT}", scripts))
    assert len(asked) > 60
    assert (page | asked) - german() == NO_WORDS


def test_no_german_text_is_left_that_nothing_says():
    said = Words((VIEWER / "index.html").read_text(encoding="utf-8")).words
    scripts = "".join(p.read_text(encoding="utf-8") for p in SCRIPTS if p.name != "german.js")
    told_by_server = {"new", "in progress", "skipped"}  # of a case
    assert {text for text in german() - said if f'"{text}"' not in scripts} <= told_by_server


def test_the_vendored_file_is_the_one_that_the_notice_names():
    notice = (VIEWER / "vendor" / "THIRD_PARTY.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"`([0-9a-f]{64})`", notice)
    assert hashlib.sha256((VIEWER / "vendor" / "niivue.js").read_bytes()).hexdigest() == named
    for part in ("NiiVue", "fflate", "gl-matrix", "nifti-reader-js", "zarrita", "numcodecs"):
        assert f"## {part}" in notice
    for part in ("array-equal", "@ungap/structured-clone", "@lukeed/uuid", "C-Blosc", "Zstandard"):
        assert f"## {part}" in notice


# Linear RGB as the missing kind of cone lets it be seen (Machado, Oliveira and Fernandes 2009, severity 1).
COLOUR_VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ_OF_RGB = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]


def lab_of(colour, vision):
    """Return CIELAB (D65) of "#rrggbb" as somebody with a kind of colour vision sees it."""
    parts = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    xyz = XYZ_OF_RGB @ np.clip(vision @ linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def colour_difference(one, other):
    """Return CIEDE2000 of two CIELAB colours."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    grow = 1 + 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25**7)))
    c1, c2 = np.hypot(a1 * grow, b1), np.hypot(a2 * grow, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a * grow)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    dl, dc, dh = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    hue = h1 + h2 if c1 * c2 == 0 else (h1 + turn / 2) % 360
    cosines = [np.cos(np.radians(n * hue + at)) for n, at in ((1, -30), (2, 0), (3, 6), (4, -63))]
    t = 1 + np.dot([-0.17, 0.24, 0.32, -0.20], cosines)
    sl = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    sc, sh = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    spread = 60 * np.exp(-(((hue - 275) / 25) ** 2))
    rt = -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(spread))
    return np.sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rt * dc / sc * dh / sh)


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
    result = re.findall(r"#[0-9a-f]{6}", table)
    assert len(set(result)) == 8
    assert all(contrast(colour, "#10141b") >= 4.5 for colour in result)
    for kind, matrix in COLOUR_VISION.items():
        labs = [lab_of(colour, matrix) for colour in result]
        worst = min(colour_difference(one, other) for one, other in itertools.combinations(labs, 2))
        assert worst >= 10, kind


def test_colour_differences_are_those_of_the_published_pairs():
    """Sharma, Wu and Dalal 2005, table 1: pairs 1, 7, 17 and 25."""
    for one, other, expected in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ):
        assert colour_difference(one, other) == pytest.approx(expected, abs=1e-4)
