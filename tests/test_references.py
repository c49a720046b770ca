"""Guide, style, mask and original colours: what they do to the picture, and what a wrong file says."""
from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import clips as media

from streamdream import models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.terms import Guide, Style, Term
from streamdream.backends import Backend, StepSpec
from streamdream.dream import reference_images, warp
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.dream.reference_images import Mask, References
from streamdream.errors import SourceError, StreamdreamError, UsageError
from streamdream.media import images
from streamdream.media.frame import to_signed_unit, to_tensor
from streamdream.render.guide_video import GuideVideo
from streamdream.settings import DreamSettings
from streamdream.settings_parsing import parse_layers

MODEL = models.get("inception_v3")
Picture = NDArray[np.uint8]


@pytest.fixture()
def stripes(tmp_path: Path) -> Path:
    """A picture unlike a lion: slanting red and white stripes."""
    down, across = np.mgrid[:160, :200]
    white = (down + across) // 12 % 2 == 0
    image = np.where(white[..., None], [250, 250, 250], [200, 20, 30]).astype(np.uint8)
    images.write_image(str(tmp_path / "stripes.png"), image)
    return tmp_path / "stripes.png"


def features(count: int, seed: int, height: int = 5, width: int = 7) -> torch.Tensor:
    return torch.rand(1, count, height, width, generator=torch.Generator().manual_seed(seed)) - 0.3


def test_the_guide_objective_equals_one_by_hand() -> None:
    """Each position climbs toward the guide's feature with the largest dot product: dream.ipynb, cell 27."""
    mine, theirs = features(4, 1).requires_grad_(), features(4, 2, 3, 3)
    term = Guide(parse_layers("a:2"))
    targets = term.targets(lambda picture: {"a": theirs}, {"guide": torch.zeros(1, 3, 1, 1)})
    found, = torch.autograd.grad(term.value({"a": mine}, targets), mine)
    x, y = mine.detach().reshape(4, -1), theirs.reshape(4, -1)
    expected = y[:, (x.T @ y).argmax(1)].reshape(mine.shape)
    torch.testing.assert_close(found, 2 * expected / mine.numel())


def test_guide_looks_at_the_chosen_channels_only() -> None:
    mine, theirs = features(4, 1).requires_grad_(), features(4, 2)
    term = Guide(parse_layers("a[1,3]"))
    targets = term.targets(lambda picture: {"a": theirs}, {"guide": torch.zeros(1, 3, 1, 1)})
    found, = torch.autograd.grad(term.value({"a": mine}, targets), mine)
    assert float(found[:, (0, 2)].abs().max()) == 0 < float(found[:, (1, 3)].abs().max())


def test_the_style_objective_equals_one_by_hand() -> None:
    mine, theirs = features(3, 1), features(3, 2, 4, 4)
    term = Style(("a",))
    targets = term.targets(lambda picture: {"a": theirs}, {"style": torch.zeros(1, 3, 1, 1)})
    grams = [torch.einsum("chw,dhw->cd", x[0], x[0]) / (x.shape[2] * x.shape[3]) for x in (mine, theirs)]
    expected = -(grams[0] - grams[1]).square().mean() / grams[1].square().mean()
    torch.testing.assert_close(term.value({"a": mine}, targets), expected)
    assert float(term.value({"a": theirs}, targets)) == 0


def test_style_is_taken_from_every_scale_when_no_tap_is_named() -> None:
    assert objectives.style_taps(MODEL) == ("activation_3", "activation_5", "mixed2", "mixed5")
    for name, model in models.MODELS.items():
        strides = [model.taps()[tap].stride for tap in objectives.style_taps(model)]
        assert strides == sorted(set(strides)) and strides[-1] == 16, name


@pytest.mark.parametrize("role", ["guide", "style"])
def test_a_dream_comes_closer_to_its_guide_or_style(role: str, eager: Backend, lion: Picture, stripes: Path) -> None:
    plain = DreamSettings(layers="mixed1", steps=3, octaves=1, step_size=0.02, color=1, warmup_steps=3)
    asked = replace(plain, style_weight=3, **{role: str(stripes)})  # type: ignore[arg-type]
    others = reference_images.read(asked)
    objective = objectives.from_settings(asked, MODEL)
    term = next(term for term, _ in objective.terms if term.needs == role)
    pictures = {name: to_tensor(to_signed_unit(image)) for name, image in
                reference_images.for_octave(others, 128, 128, 75).items()}
    found = {}
    for name, settings in (("plain", plain), (role, asked)):
        _, dream = Dreamer(MODEL, eager)(DreamState(), lion[64:192, 64:192].copy(), settings)
        found[name] = value_of(term, pictures, dream)
    assert found[role] > found["plain"]


def value_of(term: Term, pictures: dict[str, torch.Tensor], dream: Picture) -> float:
    from streamdream.models.network import Network

    network = Network(MODEL.nodes(), MODEL.load_weights(), term.taps, torch.device("cpu"), torch.float32)
    return float(term.value(network(to_tensor(to_signed_unit(dream))), term.targets(network, pictures)))


def test_dreamed_where_the_mask_is_white_and_nowhere_else(eager: Backend, lion: Picture) -> None:
    mask = np.zeros(lion.shape[:2], np.uint8)
    mask[:, 128:] = 255
    others, settings = References(mask=Mask(mask)), DreamSettings(warmup_steps=4)
    dreamer, state = Dreamer(MODEL, eager, field_height=128), DreamState()
    for shift in range(4):  # the scene moves, and what was dreamed must not be carried out of the mask
        frame = np.roll(lion, -8 * shift, 1)
        state, dream = dreamer(state, frame, settings, others)
        assert np.array_equal(dream[:, :128], frame[:, :128])
        assert np.abs(dream[:, 128:].astype(int) - frame[:, 128:]).mean() > 4


def test_grey_in_a_mask_shows_the_dream_by_that_much(eager: Backend, lion: Picture) -> None:
    def change(level: int) -> NDArray[np.float64]:
        others = References(mask=Mask(np.full((256, 256), level, np.uint8)))
        _, dream = Dreamer(MODEL, eager, 128)(DreamState(), lion // 2 + 64, DreamSettings(), others)
        return dream.astype(float) - (lion // 2 + 64)

    whole = change(255)
    inside = np.abs(whole) < 60  # not cut off at black or white
    assert inside.mean() > 0.9
    np.testing.assert_allclose(change(51)[inside], 0.2 * whole[inside], atol=1)


def test_original_colours_change_brightness_only(eager: Backend, lion: Picture) -> None:
    frame = lion // 2 + 64  # away from black and white, where nothing can be kept
    _, dream = Dreamer(MODEL, eager, 128)(DreamState(), frame, DreamSettings(original_colors=True))
    chroma = np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    change = dream.astype(float) - frame
    assert np.abs(change).mean() > 3
    inside = ((dream > 0) & (dream < 255)).all(2)  # not cut off
    assert inside.mean() > 0.9
    assert np.abs(change @ chroma.T)[inside].max() < 1
    residual = np.random.default_rng(1).normal(0, 0.1, (9, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(warp.to_luma(residual)[..., 1], residual @ [0.299, 0.587, 0.114], atol=1e-6)


def test_a_step_with_guide_and_style_equals_plain_autograd(eager: Backend, lion: Picture, stripes: Path) -> None:
    from support.autograd_reference import plain

    from streamdream.ascent import step

    settings = DreamSettings(layers="mixed1", guide=str(stripes), style=str(stripes), style_layers="mixed0,mixed1")
    objective = objectives.from_settings(settings, MODEL)
    photo = to_tensor(to_signed_unit(lion[:128, :128]) * 0.9)
    other = {name: to_tensor(to_signed_unit(images.read_image(str(stripes)))) for name in ("guide", "style")}
    watched, gradients = photo.clone().requires_grad_(), []
    for term, _ in objective.terms:
        def features_of(picture: torch.Tensor, taps: tuple[str, ...] = term.taps) -> dict[str, torch.Tensor]:
            return plain(list(taps), picture, torch.float32, folded=True)

        value = term.value(features_of(watched), term.targets(features_of, other))
        gradients.append(torch.autograd.grad(value, watched)[0])
    expected = step.ascend(photo, gradients, objective.terms, 0.02, GradientShape(1.0, 0.4))
    spec = StepSpec(objective, 128, 128, GradientShape(1.0, 0.4))
    taken = eager.compile(spec)(photo, 0.02, eager.targets(objective, other))
    assert float((taken - expected).norm() / (expected - photo).norm()) < 1e-3


def test_a_guide_may_be_small_large_or_thin(eager: Backend, lion: Picture, tmp_path: Path) -> None:
    for height, width in ((20, 30), (2000, 1500), (10, 400)):
        images.write_image(str(tmp_path / "guide.png"), np.resize(lion, (height, width, 3)), overwrite=True)
        settings = DreamSettings(guide=str(tmp_path / "guide.png"), style=str(tmp_path / "guide.png"), warmup_steps=0)
        Dreamer(MODEL, eager, 96)(DreamState(), lion, settings)


def test_a_changed_file_is_read_again(stripes: Path, tmp_path: Path) -> None:
    settings = DreamSettings(guide=str(stripes))
    first = reference_images.read(settings)
    assert reference_images.read(settings) is first
    images.write_image(str(stripes), np.zeros((90, 90, 3), np.uint8), overwrite=True)
    again = reference_images.read(settings).guide
    assert again is not None and again.shape == (90, 90, 3)


@pytest.mark.parametrize("role", ["guide", "style", "mask"])
def test_a_wrong_file_is_one_line_that_names_the_flag(role: str, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UsageError, match=f"--{role} .*nowhere.png: No such file"):
        reference_images.read(DreamSettings(**{role: str(tmp_path / "nowhere.png")}))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=f"--{role}: .*text.png is not a picture"):
        reference_images.read(DreamSettings(**{role: str(tmp_path / "text.png")}))  # type: ignore[arg-type]


def test_a_style_layer_that_is_not_there_is_named(stripes: Path) -> None:
    with pytest.raises(StreamdreamError, match="did you mean mixed2"):
        objectives.from_settings(DreamSettings(style=str(stripes), style_layers="mixd2"), MODEL)


def test_a_guide_video_plays_beside_the_first_and_starts_anew(tmp_path: Path) -> None:
    clip = tmp_path / "guide.mp4"
    media.make(clip, media.Clip(frames=6, rate=Fraction(10), time_base=Fraction(1, 10)))
    with GuideVideo(DreamSettings(guide=str(clip))) as player:
        shown = [player.references_at(seconds) for seconds in (0.0, 0.05, 0.1, 0.35, 0.5, 0.6, 0.75)]
    numbers = [media.number_of(found.guide) for found in shown if found.guide is not None]
    assert numbers[:5] == [0, 0, 1, 3, 5]
    assert numbers[5] in (0, 5) and numbers[6] in (0, 1, 2)  # begun again
    assert shown[0] is shown[1]


def test_a_guide_video_with_a_mask_keeps_one_mask(tmp_path: Path) -> None:
    """Each of its frames makes new references; the mask in them is the same."""
    clip, mask = tmp_path / "guide.mp4", tmp_path / "mask.png"
    media.make(clip, media.Clip(frames=6, rate=Fraction(10), time_base=Fraction(1, 10)))
    images.write_image(str(mask), np.full((48, 64, 3), 255, np.uint8))
    with GuideVideo(DreamSettings(guide=str(clip), mask=str(mask))) as video:
        frames = [video.references_at(number / 10) for number in range(6)]
    assert len({id(references.guide) for references in frames}) == 6
    for scaled in (reference_images.mask_weights, reference_images.mask_support):
        assert len({id(array) for array in [scaled(references, 96, 128) for references in frames]}) == 1


def test_a_guide_video_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--guide .*none.mp4: No such file"):
        GuideVideo(DreamSettings(guide=str(tmp_path / "none.mp4")))
    (tmp_path / "no.mp4").write_text("nothing")
    with pytest.raises(SourceError, match="--guide: "):
        GuideVideo(DreamSettings(guide=str(tmp_path / "no.mp4")))


