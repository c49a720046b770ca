from __future__ import annotations

import math

import pytest
import torch

from streamdream.ascent import step
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.terms import Activations, L2Penalty, Term, TotalVariation
from streamdream.settings_parsing import parse_layers

DREAM = Activations(parse_layers("a"))
ONE: list[tuple[Term, float]] = [(DREAM, 1.0)]


def picture(seed: int = 0, height: int = 20, width: int = 24) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) - 0.5


def direction(gradients: list[torch.Tensor], terms: list[tuple[Term, float]], shape: GradientShape
              ) -> torch.Tensor:
    """Where a step leads: a short one from the middle of the range, so that nothing is cut off."""
    kept = [g.clone() for g in gradients]
    moved = step.ascend(torch.zeros_like(gradients[0]), gradients, terms, 1e-3, shape)
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients, strict=True))
    return moved / 1e-3


def test_a_step_is_the_normalised_gradient() -> None:
    """With shaping off, it is the gradient, less its mean, over its mean magnitude."""
    slope, start = picture(1), picture(2)
    moved = step.ascend(start, [slope], ONE, 0.01, GradientShape(0, 1))
    centred = slope - slope.mean((2, 3), keepdim=True)
    torch.testing.assert_close(moved - start, 0.01 * centred / centred.abs().mean())


def test_a_step_leaves_its_input_alone_and_stays_a_picture() -> None:
    start = picture(4)
    kept = start.clone()
    moved = step.ascend(start, [picture(5)], ONE, 5.0, GradientShape(1, 0.4))
    assert torch.equal(start, kept)
    assert float(moved.abs().max()) == 1


def test_a_flat_gradient_moves_nothing() -> None:
    start = picture(5)
    torch.testing.assert_close(step.ascend(start, [torch.ones_like(start)], ONE, 0.1, GradientShape(1, 1)), start)


def test_terms_are_mixed_by_their_gradients_not_their_numbers() -> None:
    small, large = picture(1), 1e6 * picture(2)
    mixed = direction([small, large], [(TotalVariation(), 1.0), (L2Penalty(), -0.5)], GradientShape(1.0, 0.4))
    torch.testing.assert_close(mixed, (small / small.abs().mean() - 0.5 * large / large.abs().mean()) / 1.5)


def test_only_what_amplifies_loses_its_colour_and_its_mean() -> None:
    slope = picture(1) + 0.3
    pulled = direction([slope], [(L2Penalty(), 1.0)], GradientShape(1.0, 0.0))
    torch.testing.assert_close(pulled, slope / slope.abs().mean())
    amplified = direction([slope], [(DREAM, -3.0)], GradientShape(1.0, 0.0))
    torch.testing.assert_close(
        amplified, -step.normalize_mean_abs_(step.shape_gradient(slope, DREAM, GradientShape(1.0, 0.0)), centred=True)
    )
    grey = amplified.mean(1, keepdim=True)
    torch.testing.assert_close(amplified, grey.expand_as(amplified))


@pytest.mark.parametrize("smooth", [0.5, 1.0, 2.0])
def test_blur_is_the_mean_of_three_gaussians(smooth: float) -> None:
    impulse = torch.zeros(1, 3, 61, 61)
    impulse[:, 1, 30, 30] = 1
    radius = math.ceil(2.5 * smooth * 2)
    offsets = torch.arange(-30, 31, dtype=torch.float64)
    expected = torch.zeros(61, 61, dtype=torch.float64)
    for sigma in (0.5, 1.0, 2.0):
        line = torch.exp(-0.5 * (offsets / (smooth * sigma)) ** 2) * (offsets.abs() <= radius)
        expected += torch.outer(line / line.sum(), line / line.sum()) / 3
    found = step.blur(impulse, smooth)[0].double()
    torch.testing.assert_close(found[1], expected, atol=1e-6, rtol=0)
    assert float(found[0].abs().max() + found[2].abs().max()) == 0


def test_blur_works_on_pictures_smaller_than_its_kernel() -> None:
    assert step.blur(torch.ones(1, 3, 2, 3), 8.0).allclose(torch.ones(1, 3, 2, 3))


def test_a_step_tames_the_colour_of_a_gradient() -> None:
    gradient = picture(6)
    grey, colourful = (direction([gradient], ONE, GradientShape(0, color)) for color in (0.0, 1.0))
    assert float((grey - grey.mean(1, keepdim=True)).abs().max()) < 1e-6
    assert float((colourful - colourful.mean(1, keepdim=True)).abs().mean()) > 0.1
    for shaped in (grey, colourful):
        assert float(shaped.mean((2, 3)).abs().max()) < 1e-6  # no drift of brightness or hue
        assert math.isclose(float(shaped.abs().mean()), 1, rel_tol=1e-5)


def test_a_step_undoes_its_jitter() -> None:
    start = picture(7)
    assert torch.equal(step.shift_circular(step.shift_circular(start, (5, -3)), (-5, 3)), start)
    assert torch.equal(step.shift_circular(start, (1, 0))[..., 1:, :], start[..., :-1, :])


def test_bands_of_detail_get_equal_strength() -> None:
    """However strong the finest detail of a gradient is, and in each picture apart."""
    bands = step.split_bands(torch.cat((picture(1), picture(2))), 1.0, 3)
    louder = bands.clone()
    louder[0, :3] *= 100
    torch.testing.assert_close(step.join_bands(louder), step.join_bands(bands))
    parts = [step.join_bands(bands[1:, at:at + 3]) for at in (0, 3, 6)]
    scaled = sum(part / part.square().mean().sqrt() for part in parts)
    torch.testing.assert_close(step.join_bands(bands)[1:], scaled)


def test_the_palette_takes_the_gradient_to_the_colours_of_photographs() -> None:
    """Green against magenta is rare in them; grey stays as it is."""
    slope = picture(1)
    axis = torch.tensor([1.0, -2.0, 1.0]).reshape(1, 3, 1, 1) / 6**0.5

    def green_magenta(power: float) -> float:
        shaped = step.shape_gradient(slope, DREAM, GradientShape(0, 1.0, palette=power))
        return float(((shaped * axis).sum(1) ** 2).sum() / (shaped**2).sum())

    assert green_magenta(0.0) > 0.2 and green_magenta(0.5) < 0.12 and green_magenta(1.0) < 0.03
    grey = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8).contiguous()
    found = step.shape_gradient(grey, DREAM, GradientShape(0, 1.0, palette=1.0))
    assert float((found - grey).abs().max()) < 0.25 * float(grey.max())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_bands_add_up_to_what_the_narrowest_gaussian_leaves(count: int) -> None:
    slope = picture(3)
    bands = step.split_bands(slope, 1.0, count)
    assert bands.shape[1] == 3 * count
    total = sum(bands[:, at:at + 3] for at in range(0, 3 * count, 3))
    torch.testing.assert_close(total, step.split_bands(slope, 1.0, 1), rtol=1e-4, atol=1e-5)
