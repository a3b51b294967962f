"""The documentation site: builds without a warning, is whole, loads nothing from elsewhere, can be searched."""

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest

import clickvol
from reference.browser import FLAGS, chromium

pytest.importorskip("mkdocs", reason="the extra docs is not installed")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# What a browser fetches by itself, tag by tag, and the attribute that names it.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "video": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """As `mkdocs build --strict` makes it, in this process, which has imported what its pages are made of."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with warnings.catch_warnings():  # of its libraries; its own go to a log, and are counted by `build`
        warnings.simplefilter("default")
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
        config.plugins.on_shutdown()
    return folder


class _Fetched(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        address = dict(attrs).get(FETCHED.get(tag, ""))
        if address:
            self.addresses.append(address)


def fetched(html):
    parser = _Fetched()
    parser.feed(html)
    return parser.addresses


def test_what_is_fetched_from_elsewhere_would_be_seen():
    page = '<link rel="stylesheet" href="https://a/b.css"><script src="//c/d.js"></script><a href="https://e">f</a>'
    assert fetched(page) == ["https://a/b.css", "//c/d.js"]


def test_no_page_fetches_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    there = {address for page in pages for address in fetched(page.read_text(encoding="utf-8"))}
    assert [address for address in there if re.match(r"(\w+:)?//", address)] == []
    sheets = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheets) == []


def test_the_reference_has_every_public_name_command_and_section(site):
    python, commands, configuration, http = (
        (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
        for name in ("python", "commands", "configuration", "http")
    )
    assert [name for name in clickvol.__all__ if name != "__version__" and f".{name}" not in python] == []
    assert all(f"<code>{option}" in commands for option in ("--click I,J,K", "--robustness", "--worklist"))
    assert "highest rate" in configuration  # what the docstring says of optimiser.learning_rate
    assert "<code>POST /api/sessions/ID/clicks</code>" in http


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here; make setup installs it where it can")
def test_a_page_from_the_disk_is_searched_and_fetches_nothing(site):
    from playwright.sync_api import sync_playwright

    outside = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        page.on(
            "request", lambda request: outside.append(request.url) if request.url.startswith("http") else None
        )
        page.goto((site / "index.html").as_uri())
        page.locator("input.md-search__input").click()
        page.locator("input.md-search__input").press_sequentially("rtstruct")
        first = page.locator(".md-search-result__item a").first
        first.wait_for()
        assert "rtstruct" in page.locator(".md-search-result__list").inner_text().lower()
        browser.close()
    assert outside == []
