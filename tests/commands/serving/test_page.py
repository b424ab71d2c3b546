"""The page of ``demo`` in a browser: an image is dropped, every model answers, the attention of a word is shown."""

import base64

import pytest

from tests.page_server import BROWSER, chromium, served_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")

DROP = """([drop, content]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], "a.png", { type: "image/png" }));
  drop.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def address(models):
    """Where the page is served."""
    with served_page(models) as where:
        yield where


@pytest.fixture(scope="module")
def browser():
    with chromium(sync_api) as browser:
        yield browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_dropped_image_is_captioned_and_labelled(browser, address, models, images, files, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(address)
    drop = page.locator("#drop").element_handle()
    page.evaluate(DROP, [drop, base64.b64encode(files[1]).decode()])
    page.fill("#text", "a red circle")
    page.wait_for_selector(".captions li")
    page.click("button[type=submit]")
    sync_api.expect(page.locator(".bars")).to_have_count(2)
    sync_api.expect(page.locator("[aria-busy]")).to_have_count(0)

    captioner, classifier = models.loaded["rnn"], models.loaded["labels"]
    expected = captioner.caption(images[1], captioner.decoding(num_captions=3))[0]
    shown = page.locator(".captions li").all_inner_texts()
    assert [text.rsplit(maxsplit=1)[0].strip() for text in shown] == [text or "(empty)" for text, _ in expected]
    words = page.locator(".words button")
    assert words.all_inner_texts() == captioner.attention(images[1])[0][0]
    words.last.click()
    assert words.last.get_attribute("aria-pressed") == "true"
    drawn = "(canvas) => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    assert page.locator(".attention canvas").evaluate(drawn) > 10
    best = classifier.label_names[int(classifier.label(images[1])[0].argmax())]
    assert page.locator("[data-model=labels] .bars .label").first.inner_text() == best
    assert page.evaluate("document.documentElement.scrollWidth") == width, "something is cut off"
    assert not problems
    page.close()


def test_mistakes_are_shown(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.click("button[type=submit]")
    page.wait_for_selector(".warning")
    assert page.locator("[data-model=rnn] .warning").inner_text() == "choose an image"
    assert page.locator("[data-model=text] .warning").inner_text() == "write a caption"
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"})
    sync_api.expect(page.locator("[data-model=rnn] .warning")).to_contain_text("cannot be decoded")
    page.close()
