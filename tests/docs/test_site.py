"""The documentation site is built strictly, whole and offline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from api.app import ROUTES
from docs.site import DOCS, BrokenPages, build, page_of, relinked

ROOT = DOCS.parent
_ADDRESS = re.compile(r'<(\w+)\s[^>]*?(?:href|src)="?([^"\s>]*)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "docs"
    command = [sys.executable, "-m", "docs.site", folder, "https://example.org/captionfleet/"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def _addresses(site: Path) -> Iterator[tuple[Path, str, str]]:
    for page in site.rglob("*.html"):
        # The page for what is not found does not know how deep it is.
        if page.name != "404.html":
            yield from ((page, tag, address) for tag, address in _ADDRESS.findall(page.read_text()))


def test_everything_a_page_links_to_or_shows_is_there(site: Path) -> None:
    missing, seen = set(), 0
    for page, _, address in _addresses(site):
        parts = urlsplit(address)
        if not parts.scheme and not parts.netloc and parts.path:
            target = (page.parent / unquote(parts.path)).resolve()
            seen += 1
            if not (target / "index.html" if target.is_dir() else target).exists():
                missing.add(f"{page.relative_to(site)}: {address}")
    assert missing == set()
    assert seen > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loading = {"img", "script", "iframe", "source", "video"}
    links = {(tag, address) for _, tag, address in _addresses(site) if "//" in address}
    own = "https://example.org/captionfleet/"
    loaded = {address for tag, address in links if tag in loading or tag == "link"}
    assert {address for address in loaded if not address.startswith(own)} == set()
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text())


def test_every_page_can_be_found(site: Path) -> None:
    pages = {page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md")} - {Path("index")}
    assert all((site / page / "index.html").exists() for page in pages)
    front = (site / "index.html").read_text()
    unlisted = {str(page) for page in pages if f'href="./{page.as_posix()}/"' not in front}
    assert unlisted == set(), "add it to the nav of mkdocs.yml"
    found = json.loads((site / "search.json").read_text())["items"]
    assert any("dead-letter" in item["text"] for item in found)


def test_the_reference_has_every_call(site: Path) -> None:
    text = (site / "api/index.html").read_text()
    calls = {(route.method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)) for route in ROUTES}
    missing = {call for call in calls if f"<code>{' '.join(call)}</code>" not in text}
    assert missing == set()
    assert 'href="#type-Job"' in text
    assert 'id="type-Job"' in text


def test_links_that_leave_the_folder_lead_to_pages_of_the_site() -> None:
    found: list[Path] = []
    text = "[a](../README.md#x) [b](../.env.example) `[c](../LICENSE)` [d](https://e.org) [e](#f) [g](no.md)"
    turned = relinked(text, DOCS / "settings.md", found.append)
    assert turned == (
        "[a](repository/readme.md#x) [b](repository/env.example.md) `[c](../LICENSE)` [d](https://e.org)"
        " [e](#f) [g](no.md)"
    )
    assert found == [ROOT / "README.md", ROOT / ".env.example"]
    assert page_of(ROOT / "deploy/aws") == Path("repository/deploy/aws.md")


def test_a_broken_link_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = tmp_path / "docs"
    (pages / "images").mkdir(parents=True)
    (pages / "index.md").write_text("# Start\n\n[there](there.md) [part](index.md#part) ![a](images/a.svg)\n")
    (pages / "images/a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (pages / "site.css").write_text("")
    text = (ROOT / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(text[: text.index("\nnav:")])
    changed = {"DOCS": pages, "ROOT": tmp_path, "CONFIGURATION": tmp_path / "mkdocs.yml", "ALSO": ()}
    for name, value in changed.items():
        monkeypatch.setattr(f"docs.site.{name}", value)
    with pytest.raises(BrokenPages, match="2 issues found"):
        build(tmp_path / "site")


def test_a_folder_that_holds_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BrokenPages, match="choose another folder"):
        build(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
