"""Files that stand beside an image and bear its caption: as text, as JSON, as XMP, or many in a zip file."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

import orjson

from jobs.names import clean_path
from jobs.zips import ZipStream

# File systems take 255 bytes a name; what makes a name unique, and its ending, come on top.
_PART_BYTES = 200
# Of Windows: characters with a meaning, and names of devices, whatever their endings.
_MEANT = re.compile(r'[<>:"|?*]')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?=$|[. ])")
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
            yield b"".join(
                zipped.member(names.member(item["name"], item["position"]), sidecar("txt", item))
                for item in captioned
            )
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

    def member(self, name: str, position: int) -> str:
        """Return a safe name like the image's; the position makes a second one of that name unique."""
        stem = safe_stem(name) or f"image-{position}"
        candidates = (f"{stem}.txt", f"{stem}-{position}.txt")
        for candidate in candidates:
            if self._take(candidate):
                return candidate
        number = 2
        while not self._take(f"{stem}-{position}-{number}.txt"):
            number += 1
        return f"{stem}-{position}-{number}.txt"

    def _take(self, name: str) -> bool:
        # Some file systems tell neither case nor composed characters apart.
        key = unicodedata.normalize("NFC", name.casefold())
        return self._database.execute("INSERT OR IGNORE INTO names VALUES (?)", (key,)).rowcount == 1


def safe_stem(name: str) -> str:
    """Return a relative path without the image's ending that any system can unpack; may be empty."""
    path = PurePosixPath(clean_path(name))
    parts = [*path.parts[:-1], path.stem if path.name else ""]
    return "/".join(kept for part in parts if (kept := _safe_part(part)))


def _safe_part(part: str) -> str:
    plain = _MEANT.sub("_", part).encode("utf-8", "replace")[:_PART_BYTES].decode(errors="ignore")
    return _DEVICES.sub(r"\1_", plain.rstrip(". "), count=1) if _DEVICES.match(plain) else plain.rstrip(". ")
