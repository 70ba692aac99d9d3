"""Files that stand beside an image and bear its caption: as text, as JSON, as XMP, or many in a zip file."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain, count
from typing import Any
from xml.sax.saxutils import escape

import orjson

from jobs.names import clean_path
from jobs.zips import ZipStream

# File systems take 255 bytes a name; what makes a name unique, and its ending, come on top.
_PART_BYTES = 200
# Of Windows: characters with a meaning, and names of devices, whatever their endings.
_MEANT = re.compile(r'[<>:"|?*]')
_DEVICES = re.compile(r"(?i)\A(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?=$|[. ])")
# Gives back what is new of a JSON list of names.
_TAKE = "INSERT OR IGNORE INTO names SELECT value FROM json_each(?) RETURNING name"
# Characters that XML 1.0 cannot hold.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">{text}</rdf:li>
    </rdf:Alt>
   </dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def shown_caption(item: dict[str, Any]) -> str | None:
    """Return an item's caption: the edited one where there is one."""
    text: str | None = item["edited_caption"] or item["caption"]
    return text


def sidecar(kind: str, item: dict[str, Any]) -> bytes:
    """Return the content of an item's sidecar ``txt``, ``json`` or ``xmp``; it must have a caption."""
    text = shown_caption(item) or ""
    if kind == "json":
        return orjson.dumps(item, option=orjson.OPT_UTC_Z)
    return _xmp(text).encode() if kind == "xmp" else f"{text}\n".encode()


def _xmp(text: str) -> str:
    """Return an XMP packet (ISO 16684-1) whose dc:description is ``text``."""
    return _XMP.format(text=escape(_NOT_XML.sub(" ", text)))


def text_zip(pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield a zip file with a ``.txt`` for each item that has a caption, under its image's name."""
    with ZipStream(datetime.now(UTC)) as zipped, closing(_Names()) as names:
        for items in pages:
            captioned = [item for item in items if shown_caption(item)]
            members = names.members([(item["name"], item["position"]) for item in captioned])
            contents = (sidecar("txt", item) for item in captioned)
            yield b"".join(map(zipped.member, members, contents))
        yield from zipped.end()


class _Names:
    """Names given so far; on disk where they are many, so that memory stays the same."""

    def __init__(self) -> None:
        # An empty name makes a temporary database with a small page cache.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE names (name TEXT PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        self._database.close()

    def members(self, images: Sequence[tuple[str, int]]) -> list[str]:
        """Return a safe name like each image's; the position makes a second one of that name unique."""
        stems = [safe_stem(name) or f"image-{position}" for name, position in images]
        new = self._take([f"{stem}.txt" for stem in stems])
        return [
            f"{stem}.txt" if first else self._another(f"{stem}-{position}")
            for stem, first, (_, position) in zip(stems, new, images, strict=True)
        ]

    def _another(self, stem: str) -> str:
        numbered = chain([stem], (f"{stem}-{number}" for number in count(2)))
        return next(name for name in (f"{stem}.txt" for stem in numbered) if self._take([name])[0])

    def _take(self, names: Sequence[str]) -> list[bool]:
        """Take those names that are new, in one statement; say of each whether it was."""
        # Some file systems tell neither case nor composed characters apart.
        keys = [unicodedata.normalize("NFC", name.casefold()) for name in names]
        new = {key for (key,) in self._database.execute(_TAKE, (orjson.dumps(keys).decode(),))}
        taken = []
        for key in keys:
            taken.append(key in new)
            # Of equal names the first is the new one.
            new.discard(key)
        return taken


def safe_stem(name: str) -> str:
    """Return a relative path without the image's ending that any system can unpack; may be empty."""
    folders, slash, last = clean_path(name).rpartition("/")
    stem = last[: last.rindex(".")] if "." in last[1:] else last
    return "/".join(kept for part in f"{folders}{slash}{stem}".split("/") if (kept := _safe_part(part)))


def _safe_part(part: str) -> str:
    plain = _MEANT.sub("_", part).encode("utf-8", "replace")[:_PART_BYTES].decode(errors="ignore")
    return _DEVICES.sub(r"\1_", plain.rstrip(". "))
