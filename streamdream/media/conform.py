"""Fit pictures that change their size, orientation, pixel format or colours on the way into the form of the first."""
from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamdream.media.input_container import Rotation
from streamdream.media.picture_filter import FilterChain, PictureFilter

FILL = Fraction(1, 100)
"""A picture is stretched by up to this much to fill the frame, where its bars would be a line or two."""


@dataclass(frozen=True)
class PictureForm:
    """What may change from picture to picture."""

    width: int
    """As stored, before the rotation."""
    height: int
    rotation: Rotation
    pixel_aspect: Fraction
    """Width of a stored pixel by its height."""
    pixel_format: str
    matrix: int
    """AVCOL_SPC number, as in ``ColorTags.colorspace``."""
    range: int

    @property
    def shape(self) -> tuple[int, int, Rotation, Fraction]:
        """What the eye sees of a change."""
        return self.width, self.height, self.rotation, self.pixel_aspect

    @property
    def upright(self) -> tuple[int, int, Fraction]:
        """Width, height and pixel aspect when upright."""
        if self.rotation.transpose:
            return self.height, self.width, 1 / self.pixel_aspect
        return self.width, self.height, self.pixel_aspect


class Conformer:
    """Give each picture the form of the first one, as it is stored: upright and undistorted in the middle, with black
    bars, and with converted colours. A picture that has that form is returned as it is.
    """

    def __init__(self, first: PictureForm) -> None:
        self._first = first
        self._filter: PictureFilter | None = None
        self._form: PictureForm | None = None
        """That the filter is for."""

    def __call__(self, picture: Any, form: PictureForm) -> Any:
        """Raises what PyAV raises for a pixel format that cannot be converted."""
        if form == self._first:
            return picture
        if self._filter is None or form != self._form:
            self._filter, self._form = PictureFilter(_filters(form, self._first)), form
        fitted = self._filter(picture)
        fitted.colorspace, fitted.color_range = self._first.matrix, self._first.range
        return fitted


def fitted_size(form: PictureForm, into: PictureForm) -> tuple[int, int]:
    """Width and height of the upright picture within the upright frame of ``into``."""
    width, height, aspect = form.upright
    full_width, full_height, full_aspect = into.upright
    scale = min(full_width * full_aspect / (width * aspect), Fraction(full_height, height))
    return _even(width * aspect * scale / full_aspect, full_width), _even(height * scale, full_height)


def _even(length: Fraction, full: int) -> int:
    """A whole number of chroma samples, or all of it."""
    return full if full - length <= full * FILL else max(2 * round(length / 2), 2)


def _filters(form: PictureForm, first: PictureForm) -> FilterChain:
    width, height = fitted_size(form, first)
    full_width, full_height, _ = first.upright
    to_format = ("format", f"pix_fmts={'bgra' if first.pixel_format == 'pal8' else first.pixel_format}")
    filters = [*_turn(form.rotation),
               ("scale", f"{width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int{_colors('in', form)}"
                         f"{_colors('out', first)}"), to_format]
    if (width, height) != (full_width, full_height):
        filters.append(("pad", f"{full_width}:{full_height}:(ow-iw)/2:(oh-ih)/2:color=black"))
    return [*filters, *reversed(_turn(first.rotation)), to_format]


def _turn(rotation: Rotation) -> list[tuple[str, str]]:
    """Filters that turn a stored picture upright. Each undoes itself, so their reverse order turns it back."""
    turns = [("transpose", "dir=cclock_flip")] if rotation.transpose else []
    turns += [("vflip", "")] if rotation.flip_rows else []
    return turns + ([("hflip", "")] if rotation.flip_columns else [])


def _colors(side: str, form: PictureForm) -> str:
    """Options of the filter ``scale`` for the colours of its input or output."""
    if form.pixel_format.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal", "xyz")):
        return ""
    return f":{side}_color_matrix={form.matrix}:{side}_range={form.range}"
