"""Clips whose motion is known exactly: textured planes that move, turn and grow, one passing over the other.

A texture is a sum of sine waves and so has a value at every real position: nothing is interpolated, flow and visibility
are exact to rounding. Positions are complex numbers ``x + iy`` in pixels; a turn and a zoom are then one product.
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
"""Shortest and longest wave: coarse structure that a pyramid can follow, and detail at every pixel."""
CONTRAST = 45.0
"""Standard deviation of a texture, in grey levels."""


@dataclass(frozen=True)
class Plane:
    """A textured disc, or with an infinite radius a background. ``start`` is its centre seen from the picture's."""

    seed: int
    velocity: complex = 0j
    """Pixels a frame, right and down."""
    turn_degrees: float = 0.0
    """A frame, from x toward y."""
    zoom: float = 1.0
    """Growth a frame."""
    radius_px: float = math.inf
    """At frame 0."""
    start: complex = 0j

    def to_picture(self, on_plane: Positions, index: int) -> Positions:
        """Positions on the plane -> from the picture's centre, at frame ``index``."""
        return self.start + self.velocity * index + on_plane * self._spin**index

    def to_plane(self, in_picture: Positions, index: int) -> Positions:
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
        """Frequencies [WAVES] in radians a pixel, phases [WAVES], and how much of each wave is in R, G and B."""
        random = np.random.default_rng(self.seed)
        shortest, longest = WAVELENGTHS_PX
        wavelengths = shortest * (longest / shortest) ** random.uniform(0, 1, WAVES)
        turns = np.exp(1j * random.uniform(0, 2 * np.pi, WAVES))
        frequencies: Positions = (2 * np.pi / wavelengths * turns).astype(np.complex128)
        amplitudes = wavelengths**0.5  # falls with frequency, as in real pictures
        amplitudes *= CONTRAST * math.sqrt(2 / np.sum(amplitudes**2))
        grey, color = np.ones((WAVES, 3)), random.normal(0, 0.3, (WAVES, 3))
        return frequencies, random.uniform(0, 2 * np.pi, WAVES), amplitudes[:, None] * (grey + color)


@dataclass(frozen=True)
class Truth:
    """One frame and what is true of it."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    flow: NDArray[np.float32]
    """[H, W, 2] pixels, current -> previous."""
    visible: NDArray[np.bool_]
    """[H, W]: what this pixel shows was in the previous picture too, neither covered nor outside."""
    plane: NDArray[np.int64]
    """[H, W]: which plane is on top here."""


@dataclass(frozen=True)
class Scene:
    """Planes, the lowest first; the lowest should fill the picture."""

    height: int
    width: int
    planes: tuple[Plane, ...]

    def clip(self, frames: int, first: int = 0) -> Iterator[Truth]:
        """Consecutive frames; the flow of each, of the first too, leads to the frame before it."""
        return (self.truth(index) for index in range(first, first + frames))

    def truth(self, index: int) -> Truth:
        here = self._grid()
        top = self._top(here, index)
        image, before = np.empty((here.size, 3)), np.empty_like(here)
        for number, plane in enumerate(self.planes):
            shown = top == number
            on_plane = plane.to_plane(here[shown], index)
            image[shown] = plane.texture(on_plane)
            before[shown] = plane.to_picture(on_plane, index - 1)
        motion = np.stack([(before - here).real, (before - here).imag], axis=-1)
        visible = self._inside(before) & (self._top(before, index - 1) == top)
        shape = (self.height, self.width)
        return Truth(np.clip(np.rint(image), 0, 255).astype(np.uint8).reshape(*shape, 3),
                     motion.astype(np.float32).reshape(*shape, 2), visible.reshape(shape), top.reshape(shape))

    def _grid(self) -> Positions:
        """Every pixel, row by row, seen from the picture's centre."""
        y, x = np.mgrid[:self.height, :self.width]
        result: Positions = (x + 1j * y).ravel() - self._centre
        return result

    def _top(self, in_picture: Positions, index: int) -> NDArray[np.int64]:
        top = np.zeros(in_picture.shape, np.int64)
        for number, plane in enumerate(self.planes):
            top[plane.covers(plane.to_plane(in_picture, index))] = number
        return top

    def _inside(self, in_picture: Positions) -> NDArray[np.bool_]:
        slack = 1e-9  # of a pixel: rounding must not make the edge of a still picture leave it
        result: NDArray[np.bool_] = ((np.abs(in_picture.real) <= (self.width - 1) / 2 + slack)
                                     & (np.abs(in_picture.imag) <= (self.height - 1) / 2 + slack))
        return result

    @property
    def _centre(self) -> complex:
        return complex((self.width - 1) / 2, (self.height - 1) / 2)


def crossing(height: int = 240, width: int = 320, seed: int = 0) -> Scene:
    """The usual scene: a disc moving right over a background that moves left and down."""
    return Scene(height, width, (
        Plane(seed, velocity=-1.4 + 0.6j),
        Plane(seed + 1, velocity=2.3 - 0.7j, radius_px=0.28 * height, start=complex(-0.15 * width, 0)),
    ))


def turning(height: int = 240, width: int = 320, seed: int = 0) -> Scene:
    """A disc that turns and shrinks over a background that turns slowly and grows."""
    return Scene(height, width, (
        Plane(seed, turn_degrees=0.4, zoom=1.006),
        Plane(seed + 1, velocity=1.5 + 1j, turn_degrees=-2, zoom=0.99, radius_px=0.25 * height),
    ))
