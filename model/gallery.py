"""A page to look at: photos with their references and what a model says, in one file of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from model.captioner import Preprocessing
from model.dataset import CaptionedImage
from model.images import read_image

MOST_PHOTOS = 200
"""About 15 KB each; a page of thousands would be slow to open."""
_SIDE = 320
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem }
h1 { font-size: 1.3rem; margin: 0 }
dl.figures { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; margin: 1rem 0 2rem }
dl.figures dt { font-size: .8rem; opacity: .75 }
dl.figures dd { margin: 0; font-weight: 600 }
main { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)) }
article { border: 1px solid #8886; border-radius: .5rem; overflow: hidden }
article img { display: block; width: 100%; height: 15rem; object-fit: contain; background: #8882 }
article > div { padding: .6rem .9rem .9rem }
h2 { font: .75rem ui-monospace, monospace; margin: 0 0 .5rem; opacity: .75; overflow-wrap: anywhere }
h3 { font-size: .75rem; margin: .6rem 0 .1rem; opacity: .75 }
p { margin: 0; font-weight: 600 }
ul { margin: 0; padding-left: 1.1rem }
"""


def write_page(
    path: Path,
    title: str,
    figures: Iterable[tuple[str, str]],
    images: Path,
    photos: Sequence[CaptionedImage],
    said: Mapping[str, Mapping[str, str]],
) -> None:
    """Write an HTML page of photos; ``said`` holds captions by column and photo.

    The page needs no network and no script. Raises ``OSError`` if it cannot be written, ``ImageError`` on a
    photo that cannot be read.
    """
    cards = "\n".join(_card(images, photo, said) for photo in photos)
    terms = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures)
    page = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<h1>{escape(title)}</h1>
<dl class="figures">{terms}</dl>
<main>
{cards}
</main>
</html>
"""
    path.write_text(page, encoding="utf-8")


def _card(images: Path, photo: CaptionedImage, said: Mapping[str, Mapping[str, str]]) -> str:
    columns = "".join(
        f"<h3>{escape(column)}</h3><p>{escape(captions.get(photo.name, '')) or '(nothing)'}</p>"
        for column, captions in said.items()
    )
    references = "".join(f"<li>{escape(text)}</li>" for text in photo.captions)
    return (
        f'<article><img loading="lazy" alt="" src="data:image/jpeg;base64,{_thumbnail(images / photo.name)}">'
        f"<div><h2>{escape(photo.name)}</h2>{columns}<h3>references</h3><ul>{references}</ul></div></article>"
    )


def _thumbnail(path: Path) -> str:
    found = read_image(path.read_bytes(), Preprocessing(_SIDE, _SIDE))
    share = _SIDE / max(found.width, found.height)
    size = max(round(found.width * share), 1), max(round(found.height * share), 1)
    small = Image.fromarray(found.pixels).resize(size, Image.Resampling.BICUBIC)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode()
