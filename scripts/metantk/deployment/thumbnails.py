"""A page of one's own images by the classes that they were given: one HTML file, to be checked at a glance.

Everything is inside the file, and it may load nothing: names of files and classes are text, whatever they hold.
"""

import base64
import html
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from metantk.data.image_files import UnreadableError, read_image

SIDE = 96  # pixels of a thumbnail
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
h2 { margin: 1.5em 0 .3em; border-bottom: 1px solid #ccc }
.row { display: flex; flex-wrap: wrap; gap: 8px }
figure { margin: 0; width: 96px; overflow-wrap: anywhere; font-size: 11px }
img { display: block; width: 96px; height: 96px; box-sizing: border-box; border: 2px solid #ccc }
.support img { border-color: #4477aa } .unsure img { border-color: #ee6677 }
"""
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
<p>{note}</p>
"""


class Shown(NamedTuple):
    """An image and what stands below it; `style` is support, sure or unsure."""

    file: Path
    caption: str
    style: str


def is_page(path: Path) -> bool:
    """Whether a file is such a page."""
    start = HEAD[: HEAD.index("<title>")].encode()
    with path.open("rb") as file:
        return file.read(len(start)) == start


def write_page(path: Path, *, title: str, note: str, sections: Iterable[tuple[str, list[Shown]]]) -> None:
    """Write the page, section by section: images are decoded again, so that memory does not grow with them."""
    with path.open("w", encoding="utf-8") as page:
        page.writelines(render(title, note, sections))


def render(title: str, note: str, sections: Iterable[tuple[str, list[Shown]]]) -> Iterator[str]:
    yield HEAD.format(title=html.escape(title), note=html.escape(note), style=STYLE)
    for heading, images in sections:
        yield f'<h2>{html.escape(heading)}</h2>\n<div class="row">\n'
        for shown in images:
            try:
                source = _inline(shown.file)
            except UnreadableError:  # left out of everything, as asked for
                continue
            caption = html.escape(shown.caption)
            yield f'<figure class="{html.escape(shown.style)}"><img alt="{caption}" src="{source}">'
            yield f"<figcaption>{caption}</figcaption></figure>\n"
        yield "</div>\n"
    yield "</body></html>\n"


def _inline(file: Path) -> str:
    buffer = io.BytesIO()
    Image.fromarray(read_image(file, SIDE)).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
