"""Give images of HTML pages their alternative texts: python examples/alt_texts.py CAPTIONS.jsonl FOLDER.

An image that has an ``alt`` attribute keeps it, also an empty one: its author calls it decoration. Nothing
else in a page changes. A caption is found by the image's file or by its path below the folder, else by its
name, where only one image has that name. With ``--dry-run`` the texts are shown and no page is written.
"""

import html
import json
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Screen readers read longer ones without a pause.
LONGEST = 125


class Captions:
    """Alternative texts of a results file."""

    def __init__(self, results: Path) -> None:
        """Read what has a caption; a person's edit goes before the model's own words."""
        self._by_place: dict[str, str] = {}
        self._by_name: dict[str, str | None] = {}
        for line in results.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            text = item["edited_caption"] or item["caption"]
            if text:
                short = textwrap.shorten(text, LONGEST, placeholder="…")
                self._by_place |= {item["source"]: short, item["custom_id"]: short}
                self._by_name[item["name"]] = None if item["name"] in self._by_name else short

    def of(self, image: Path, root: Path) -> str | None:
        """Return the text of an image file, or nothing."""
        path = image.relative_to(root).as_posix() if image.is_relative_to(root) else ""
        # In a folder, a bare name is no path: it may be that of another image.
        found = self._by_place.get(path) if "/" in path else None
        return self._by_place.get(image.as_uri()) or found or self._by_name.get(image.name)


class Images(HTMLParser):
    """Finds images without alternative text in a page: where in its text, and their addresses."""

    def __init__(self, page: str) -> None:
        """Read a page."""
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[int, str]] = []
        self._lines = [0]
        for line in page.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an image that says nothing of an alternative text."""
        given = dict(attrs)
        hidden = given.get("aria-hidden") == "true" or given.get("role") in ("presentation", "none")
        address = given.get("src")
        if tag == "img" and "alt" not in given and not hidden and address:
            line, column = self.getpos()
            self.found.append((self._lines[line - 1] + column + len("<img"), address))


def file_of(address: str, page: Path, root: Path) -> Path | None:
    """Return the file that an address on a page means, or nothing where it lies elsewhere."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(parts.path)
    return (root / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve()


def filled(page: Path, root: Path, captions: Captions) -> tuple[str, str]:
    """Return a page's text before and after; print what is filled in, and what has no caption."""
    with page.open(encoding="utf-8", newline="") as file:
        text = file.read()
    pieces, end = [], 0
    for position, address in Images(text).found:
        image = file_of(address, page, root)
        caption = captions.of(image, root) if image else None
        if caption is None:
            print(f"{page.relative_to(root)}: {address} has no caption", file=sys.stderr)
            continue
        print(page.relative_to(root), address, caption, sep="\t")
        pieces += [text[end:position], f' alt="{html.escape(caption)}"']
        end = position
    return text, "".join([*pieces, text[end:]])


def main(results: str, folder: str, *options: str) -> None:
    """Fill in all pages below a folder; each is replaced when it is whole."""
    root, captions = Path(folder).resolve(), Captions(Path(results))
    for page in sorted(root.rglob("*.htm*")):
        try:
            before, after = filled(page, root, captions)
        except UnicodeDecodeError:
            print(f"{page.relative_to(root)} is not UTF-8 and is left alone", file=sys.stderr)
            continue
        if after != before and "--dry-run" not in options:
            whole = page.with_name(f".{page.name}.part")
            with whole.open("w", encoding="utf-8", newline="") as file:
                file.write(after)
            whole.replace(page)


main(*sys.argv[1:])
