"""Links and anchors of the pages lead somewhere; files, folders and classes that pages and headers name exist."""

import importlib
import re
import unicodedata
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.texts import EXPERIMENTS, PACKAGES, PAGES, header_of

SPHINX_PAGES = [page for page in PAGES if page.parent.name == "docs"]
PRESENT = [page for page in PAGES if page.stem not in ("CHANGELOG", "migration")]
"""Pages that do not speak of the past."""
ENDINGS = (".py", ".yaml", ".yml", ".md", ".png", ".json", ".csv")
FOLDERS = ("experiments", "docs", "tests", "benchmarks", "scripts", ".ci", ".github", *PACKAGES)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?<![\w/.${{-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*")
_CLASS = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
_MADE = ("docs/_build", "docs/api")
"""What `make docs` writes."""


def text_of(page: Path) -> str:
    """A page without the code in it, whose brackets are no links."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    return re.sub(r"^ {4}.*$|`[^`]*`", "", text, flags=re.M)


def links() -> list[tuple[Path, str]]:
    """Relative links of all pages: page and target."""
    found = [(page, target) for page in PAGES for target in _LINK.findall(text_of(page))]
    return [(page, target) for page, target in found if not target.startswith(("http://", "https://", "mailto:"))]


def anchors_of(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    kept = (re.sub(r"[^\w\- ]", "", unicodedata.normalize("NFC", heading.lower())) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


def test_links_lead_somewhere():
    found = links()
    assert len(found) > 40
    for page, target in found:
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors_of(file), f"{page.name}: {target}"


def test_every_page_is_linked():
    linked = {(page.parent / target.partition("#")[0]).resolve() for page, target in links()}
    contents = (ROOT / "docs" / "index.md").read_text().splitlines()
    for page in SPHINX_PAGES:
        assert page in linked or page.stem == "index", f"{page.name} is linked nowhere"
        assert page.stem in contents or page.stem == "index", f"{page.name} is not in docs/index.md"


def names(text: str) -> list[str]:
    """Paths that a text names, without those that a reader has to fill in."""
    found = [match.rstrip(".-") for match in _PATH.findall(text)]
    return [path for path in found if not path.startswith(_MADE) and not re.search(r"/[A-Z_]+(\.|/|$)", path)]


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    missing = [path for path in names(page.read_text()) if not list(ROOT.glob(path))]
    assert not missing


def test_files_that_headers_name_exist():
    found = {(path, file) for path in EXPERIMENTS for file in names("\n".join(header_of(path)))}
    assert len(found) > 20
    assert not [(path.name, file) for path, file in found if not list(ROOT.glob(file))]


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_classes_that_are_named_exist(page):
    named = {match for match in _CLASS.findall(page.read_text()) if not match.endswith(ENDINGS)}
    assert not [name for name in sorted(named) if not exists(name)]


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module = name
    while module:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            module = module.rpartition(".")[0]
            continue
        return not (missing := name.removeprefix(module).removeprefix(".")) or hasattr(found, missing)
    return False
