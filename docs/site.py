"""Builds the documentation site: ``python -m docs.site FOLDER [ADDRESS]``, which is what ``make docs`` runs.

Links of the pages lead anywhere in the repository. What lies outside ``docs/`` and is linked gets a page of
its own, so that the site works without a repository to link to. Broken links and anchors fail the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.reference import api_reference

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
CONFIGURATION = ROOT / "mkdocs.yml"
# Named by the configuration though no page links to it.
ALSO = (ROOT / "CHANGELOG.md",)
ICON = ROOT / "api/static/icon.svg"
# Where docs/api.md wants the reference.
MARK = "<!-- The site has the reference here. -->"

_CODE = re.compile(r"(```.*?```|`[^`]+`)", re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LANGUAGES = {".py": "python", ".json": "json", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml"}


class BrokenPages(Exception):
    """What is wrong with the pages, in the builder's words."""


def page_of(path: Path) -> Path:
    """Return where a file or folder of the repository stands on the site, relative to its root."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS)
    inside = path.relative_to(ROOT)
    # A README would become its folder's index, a hidden file nothing.
    name = inside.name.lower() if path.suffix == ".md" else f"{inside.name.lstrip('.')}.md"
    return Path("repository", inside.parent, name)


def relinked(text: str, source: Path, found: Callable[[Path], None]) -> str:
    """Return a page's text with its links as the site needs them; ``found`` is told where each one leads."""

    def turned(link: re.Match[str]) -> str:
        target = (source.parent / link[1]).resolve()
        if not target.exists():
            # Left as it is: the build names it.
            return link[1]
        found(target)
        return os.path.relpath(page_of(target), page_of(source).parent)

    parts = _CODE.split(text)
    parts[::2] = [_LINK.sub(turned, part) for part in parts[::2]]
    return "".join(parts)


class Pages:
    """Puts pages into a folder, each with everything it links to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[Path] = set()

    def add(self, path: Path) -> None:
        """Put a file or folder of the repository there, once."""
        if path in self._seen:
            return
        self._seen.add(path)
        target = self._folder / page_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            target.write_text(self._listing(path))
        elif path.suffix == ".md":
            text = path.read_text().replace(MARK, api_reference() if MARK in path.read_text() else "")
            target.write_text(relinked(text, path, self.add))
        elif path.is_relative_to(DOCS):
            shutil.copyfile(path, target)
        else:
            target.write_text(_source_page(path))

    def _listing(self, folder: Path) -> str:
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        for file in files:
            self.add(file)
        page = page_of(folder)
        links = [f"- [{file.name}]({os.path.relpath(page_of(file), page.parent)})" for file in files]
        return "\n".join([_heading(folder), *links, ""])


def _heading(path: Path) -> str:
    # Found by the pages that link to them; a search is for the pages.
    return f"---\nsearch:\n  exclude: true\n---\n\n# `{path.relative_to(ROOT)}`\n"


def _source_page(path: Path) -> str:
    return f"{_heading(path)}\n````{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text().rstrip()}\n````\n"


def _configuration(address: str) -> str:
    # The list of decisions is the last thing in the file.
    text = CONFIGURATION.read_text()
    for decision in sorted((DOCS / "decisions").glob("*.md")):
        title = decision.read_text().splitlines()[0].removeprefix("# ")
        text += f'      - "{title}": decisions/{decision.name}\n'
    return text + (f"site_url: {address}\n" if address else "")


def build(site: Path, address: str = "") -> None:
    """Build the site, to be served at ``address``, in place of the one in the folder ``site``.

    Raises ``BrokenPages`` for links that lead nowhere and for a folder that holds something else.
    """
    if site.exists() and not (site / "search.json").is_file() and any(site.iterdir()):
        raise BrokenPages(f"{site} holds something else than a site; choose another folder")
    with TemporaryDirectory(prefix="captionfleet-docs-") as name:
        work = Path(name)
        pages = Pages(work / "docs")
        for path in [*sorted(DOCS.rglob("*.md")), *ALSO]:
            pages.add(path)
        shutil.copyfile(ICON, work / "docs/images/icon.svg")
        shutil.copyfile(DOCS / "site.css", work / "docs/site.css")
        (work / CONFIGURATION.name).write_text(_configuration(address))
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", CONFIGURATION.name]
        ran = subprocess.run(command, cwd=work, capture_output=True, text=True)  # noqa: S603 (nothing foreign)
        if ran.returncode != 0:
            # Behind what is wrong it writes where in its own code it stopped.
            raise BrokenPages(_COLOUR.sub("", ran.stdout + ran.stderr).partition("Traceback")[0])
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(work / "site", site)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]), *sys.argv[2:])
    except BrokenPages as error:
        sys.exit(str(error))
