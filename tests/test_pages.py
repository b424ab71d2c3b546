"""Reports of all methods, a comparison, a search and the demo page in a browser: wide and narrow, light and dark.

With ``CAPTION_PAGES=FOLDER`` the pages and an image of each are kept, to be looked at.
"""

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.made_pages import CAPTIONERS, SERVED, TRIALS, make_pages, served
from tests.page_server import BROWSER, chromium

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")]

CHECKS = (Path(__file__).parent / "page_checks.js").read_text()
PICTURE = ROOT / "docs" / "scene.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    kept = os.environ.get("CAPTION_PAGES")
    if not kept:
        return tmp_path_factory.mktemp("pages")
    Path(kept).mkdir(parents=True)  # an own, new one
    return Path(kept).resolve()


@pytest.fixture(scope="module")
def pages(folder):
    return make_pages(folder)


@pytest.fixture(scope="module")
def browser():
    with chromium(sync_api) as browser:
        yield browser


def problems_of(browser, address, width, scheme, image, use=None):
    """What is wrong with a page at a width and in a colour scheme; its image goes to a file."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"not loaded: {request.url[:80]}"))
    page.goto(address)
    if use is not None:
        use(page)
    problems += page.evaluate(CHECKS)
    image.parent.mkdir(exist_ok=True)
    page.screenshot(path=image, full_page=True)
    page.close()
    return problems


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("width", "scheme"), [(w, s) for w in (1280, 400) for s in ("light", "dark")])
def test_every_page_is_whole_and_readable(browser, pages, folder, width, scheme):
    assert {f"report-{name}" for name in SERVED} < pages.keys()
    found = {
        name: problems_of(browser, path.as_uri(), width, scheme, folder / "shots" / f"{name}-{width}-{scheme}.png")
        for name, path in pages.items()
    }
    assert {name: problems for name, problems in found.items() if problems} == {}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark"), (1280, "dark"), (400, "light")])
def test_the_demo_page_is_whole_and_readable_with_its_answers(browser, pages, folder, width, scheme):
    del pages

    def use(page):
        page.fill("#text", "a red circle")
        page.set_input_files("#file", PICTURE)
        sync_api.expect(page.locator(".captions")).to_have_count(len(CAPTIONERS), timeout=30_000)
        sync_api.expect(page.locator(".bars")).to_have_count(len(SERVED) - len(CAPTIONERS), timeout=30_000)
        sync_api.expect(page.locator("[aria-busy]")).to_have_count(0, timeout=30_000)

    with served(folder) as address:
        image = folder / "shots" / f"demo-{width}-{scheme}.png"
        assert problems_of(browser, address, width, scheme, image, use) == []


def test_a_page_that_is_broken_is_found(browser, tmp_path):
    (tmp_path / "page.html").write_text(
        '<p style="width: 2000px; color: #ccc">pale</p><img alt="gone" src="data:image/png;base64,xx">'
        "<script>console.error('oh'); undefined.x</script>"
    )
    found = "\n".join(problems_of(browser, (tmp_path / "page.html").as_uri(), 400, "light", tmp_path / "page.png"))
    for sign in ("cut off", "broken image: gone", "contrast 1.6", "error: oh", "Cannot read properties"):
        assert sign in found


def test_all_trials_of_the_search_are_on_its_page(pages):
    assert f"{TRIALS} trials" in pages["search"].read_text("utf-8")
