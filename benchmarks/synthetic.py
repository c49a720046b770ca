"""Synthetic clips with known motion: textured planes that move, rotate and zoom, one passing over the other.

A texture is a sum of sine waves, so it has a value at every real position: nothing is interpolated, and flow and
visibility are exact to rounding. Positions are complex numbers ``x + iy`` in pixels, so that rotation and zoom are one
multiplication.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.complex128]

WAVES = 48
WAVELENGTHS_PX = (5.0, 80.0)
"""Shortest and longest wavelength: coarse structure for the pyramids of the flow methods, and detail at every pixel."""
CONTRAST = 45.0
"""Standard deviation of a texture, in grey levels."""


@dataclass(frozen=True)
class Plane:
    """A textured disc, or with an infinite radius a background. ``start`` is its centre, relative to the picture's."""

    seed: int
    velocity: complex = 0j
    """Pixels per frame, to the right and down."""
    turn_degrees: float = 0.0
    """Rotation per frame, from x toward y."""
    zoom: float = 1.0
    """Magnification per frame."""
    radius_px: float = math.inf
    """At frame 0."""
    start: complex = 0j

    def to_picture(self, on_plane: Positions, index: int) -> Positions:
        """Positions on the plane -> positions relative to the picture's centre, at frame ``index``."""
        return self.start + self.velocity * index + on_plane * self._spin**index

    def to_plane(self, in_picture: Positions, index: int) -> Positions:
        """Positions relative to the picture's centre -> positions on the plane, at frame ``index``."""
        return (in_picture - self.start - self.velocity * index) / self._spin**index

    def covers(self, on_plane: Positions) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = np.abs(on_plane) <= self.radius_px
        return result

    def texture(self, on_plane: Positions) -> NDArray[np.float64]:
        """Positions [N] -> RGB [N, 3] around grey 127."""
        frequencies, phases, mix = self._waves
        angles = np.outer(on_plane.real, frequencies.real) + np.outer(on_plane.imag, frequencies.imag) + phases
        result: NDArray[np.float64] = 127 + np.sin(angles) @ mix
        return result

    @property
    def _spin(self) -> complex:
        return self.zoom * complex(math.cos(math.radians(self.turn_degrees)), math.sin(math.radians(self.turn_degrees)))

    @cached_property
    def _waves(self) -> tuple[Positions, NDArray[np.float64], NDArray[np.float64]]:
        """Frequencies [WAVES] in radians per pixel, phases [WAVES], and amplitudes [WAVES, 3] in R, G and B."""
        random = np.random.default_rng(self.seed)
        shortest, longest = WAVELENGTHS_PX
        wavelengths = shortest * (longest / shortest) ** random.uniform(0, 1, WAVES)
        directions = np.exp(1j * random.uniform(0, 2 * np.pi, WAVES))
        frequencies: Positions = (2 * np.pi / wavelengths * directions).astype(np.complex128)
        amplitudes = wavelengths**0.5  # decreases with frequency, as in real pictures
        amplitudes *= CONTRAST * math.sqrt(2 / np.sum(amplitudes**2))
        grey, color = np.ones((WAVES, 3)), random.normal(0, 0.3, (WAVES, 3))
        return frequencies, random.uniform(0, 2 * np.pi, WAVES), amplitudes[:, None] * (grey + color)


@dataclass(frozen=True)
class Truth:
    """A frame and its ground truth."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    flow: NDArray[np.float32]
    """[H, W, 2] pixels, current -> previous."""
    visible: NDArray[np.bool_]
    """[H, W]: whether the point at this pixel was visible in the previous picture, neither covered nor outside."""
    plane: NDArray[np.int64]
    """[H, W]: index of the plane on top."""


@dataclass(frozen=True)
class Scene:
    """Planes, from bottom to top; the lowest should fill the picture."""

    height: int
    width: int
    planes: tuple[Plane, ...]

    def clip(self, frames: int, first: int = 0) -> Iterator[Truth]:
        """Yield consecutive frames; the flow of each, also of the first, leads to the previous frame."""
        return (self.truth(index) for index in range(first, first + frames))

    def truth(self, index: int) -> Truth:
        """Render frame ``index``."""
        current = self._grid()
        top = self._top(current, index)
        image, previous = np.empty((current.size, 3)), np.empty_like(current)
        for number, plane in enumerate(self.planes):
            shown = top == number
            on_plane = plane.to_plane(current[shown], index)
            image[shown] = plane.texture(on_plane)
            previous[shown] = plane.to_picture(on_plane, index - 1)
        motion = np.stack([(previous - current).real, (previous - current).imag], axis=-1)
        visible = self._inside(previous) & (self._top(previous, index - 1) == top)
        shape = (self.height, self.width)
        return Truth(np.clip(np.rint(image), 0, 255).astype(np.uint8).reshape(*shape, 3),
                     motion.astype(np.float32).reshape(*shape, 2), visible.reshape(shape), top.reshape(shape))

    def _grid(self) -> Positions:
        """Return the positions of all pixels, row by row, relative to the picture's centre."""
        y, x = np.mgrid[:self.height, :self.width]
        result: Positions = (x + 1j * y).ravel() - self._centre
        return result

    def _top(self, in_picture: Positions, index: int) -> NDArray[np.int64]:
        top = np.zeros(in_picture.shape, np.int64)
        for number, plane in enumerate(self.planes):
            top[plane.covers(plane.to_plane(in_picture, index))] = number
        return top

    def _inside(self, in_picture: Positions) -> NDArray[np.bool_]:
        tolerance = 1e-9  # pixels: with rounding errors, the edge of a still picture must count as inside
        result: NDArray[np.bool_] = ((np.abs(in_picture.real) <= (self.width - 1) / 2 + tolerance)
                                     & (np.abs(in_picture.imag) <= (self.height - 1) / 2 + tolerance))
        return result

    @property
    def _centre(self) -> complex:
        return complex((self.width - 1) / 2, (self.height - 1) / 2)


def crossing(height: int = 240, width: int = 320, seed: int = 0) -> Scene:
    """Return the default scene: a disc that moves right over a background that moves left and down."""
    return Scene(height, width, (
        Plane(seed, velocity=-1.4 + 0.6j),
        Plane(seed + 1, velocity=2.3 - 0.7j, radius_px=0.28 * height, start=complex(-0.15 * width, 0)),
    ))


def turning(height: int = 240, width: int = 320, seed: int = 0) -> Scene:
    """Return a scene of a disc that rotates and shrinks over a background that rotates slowly and grows."""
    return Scene(height, width, (
        Plane(seed, turn_degrees=0.4, zoom=1.006),
        Plane(seed + 1, velocity=1.5 + 1j, turn_degrees=-2, zoom=0.99, radius_px=0.25 * height),
    ))
