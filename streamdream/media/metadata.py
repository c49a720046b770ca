"""Keep a recipe, a text that says how a dream was made, in the metadata of videos and pictures, and find it again.

| file | place |
|---|---|
| .mp4, .m4v, .mkv, .webm | the tag ``grouping``: FFmpeg copies it between all of them |
| .mov | XMP, since the few tags that FFmpeg writes there all have a meaning |
| .png, .jpg, .webp | Exif, ``UserComment`` |

The text begins with ``MARK`` and is found by that, under whatever tag another program has copied it to. Figures:
docs/notebook/2026-11-27-recipe-metadata.md.
"""
from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, unescape

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SettingsError
from streamdream.media.input_container import open_file

MARK = "# streamdream recipe"
MAX_BYTES = 60_000
"""Of a recipe, written or read; an Exif block in a JPEG file holds no more."""
TAGS = ("grouping", "keywords", "lyrics")
"""The first that the input does not have is used."""
TAG_FORMATS, XMP_FORMAT = ("mp4", "matroska", "webm"), "mov"
XMP = ('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
       '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
       'xmlns:streamdream="urn:streamdream"><streamdream:recipe>{}</streamdream:recipe></rdf:Description></rdf:RDF>'
       '</x:xmpmeta><?xpacket end="w"?>')
IN_XMP = re.compile(r"<streamdream:recipe>(.*?)</streamdream:recipe>", re.DOTALL)
CHARACTER_CODE = b"ASCII\0\0\0"
"""The 8 bytes before an Exif comment. Exif knows no UTF-8; programs that show ASCII show it all the same."""


def set_recipe(container: Any, recipe: str, notes: list[str]) -> None:
    """Put ``recipe`` into the metadata of an av container whose header is not yet written; "" is none.

    A recipe that was copied from the input is removed: it tells of another dream.
    """
    tags, format = container.metadata, container.format.name
    for key in [key for key, value in tags.items() if value.startswith(MARK)]:
        del tags[key]
    if not recipe:
        return
    if format == XMP_FORMAT:
        tags["xmp"] = XMP.format(escape(recipe))
    elif format in TAG_FORMATS:
        used = {key.lower() for key in tags}
        free = next((key for key in TAGS if key not in used), None)
        if free is None:
            notes.append(f"the output has no recipe: its input uses the tags {', '.join(TAGS)} itself")
        else:
            tags[free] = recipe


def to_exif(recipe: str) -> NDArray[np.uint8]:
    """Return the Exif block [1, N] of a picture with that recipe."""
    from PIL import ExifTags, Image

    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: CHARACTER_CODE + recipe.encode()}
    return np.frombuffer(exif.tobytes().removeprefix(b"Exif\0\0"), np.uint8)[None]


def read_recipe(path: str) -> str:
    """Return the recipe in a video or picture file; "" when it carries none.

    Raises OSError or UsageError for a file that cannot be opened, SourceError for one that is no video or picture, and
    SettingsError for a recipe that is too long or not text.
    """
    found = next((text for text in _texts(path) if text.startswith(MARK)), "")
    try:
        size = len(found.encode())
    except UnicodeEncodeError:
        raise SettingsError(f"{path}: its recipe is not text") from None
    if size > MAX_BYTES:
        raise SettingsError(f"{path}: its recipe is longer than {MAX_BYTES} bytes")
    return found


def _texts(path: str) -> Iterable[str]:
    begin = b""
    if Path(path).is_file():  # else FFmpeg's error tells what it is
        with Path(path).open("rb") as file:
            begin = file.read(12)
    if begin.startswith((b"\x89PNG", b"\xff\xd8\xff")) or (begin[:4], begin[8:]) == (b"RIFF", b"WEBP"):
        return [_exif_comment(path, begin)]
    with open_file(path, export_xmp="1") as container:
        values = [*container.metadata.values(), *(text for stream in container.streams
                                                  for text in stream.metadata.values())]
    return values + [unescape(match[1]) for text in values if (match := IN_XMP.search(text))]


def _exif_comment(path: str, begin: bytes) -> str:
    from PIL import ExifTags, Image
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    kinds = {b"\x89PNG": PngImageFile, b"RIFF": WebPImageFile}
    exif = Image.Exif()
    try:
        # Image.open would refuse a very large picture, of which nothing is decoded here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with kinds.get(begin[:4], JpegImageFile)(path) as picture:
                exif.load(picture.info.get("exif", b""))
            comment: bytes = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        return comment[len(CHARACTER_CODE):].decode()
    except Exception:  # whatever Pillow's parsers meet in a damaged file; then it carries no recipe
        return ""
