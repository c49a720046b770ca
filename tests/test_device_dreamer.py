"""Whole frames on a device equal the processor's path. Here the device is the processor itself."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.tensors import NoHostWait
from torch import Tensor

from streamdream import backends, models
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.objectives import from_settings
from streamdream.backends import Backend, StepSpec
from streamdream.dream import device_dreamer, device_frame
from streamdream.dream.device_dreamer import to_planes
from streamdream.dream.device_frame import FrameSpec, FrameState
from streamdream.dream.dreamer import Dreamer
from streamdream.dream.options import DreamOptions
from streamdream.dream.reference_images import Mask, References
from streamdream.dream.state import DreamState
from streamdream.errors import FieldTooSmall, SettingsError
from streamdream.media import images
from streamdream.media.frame import Frame
from streamdream.media.opencv import cv2
from streamdream.media.sources.video import open_source
from streamdream.settings import DreamSettings

Picture = NDArray[np.uint8]
SETTINGS = DreamSettings(layers="conv2d_3", warmup_steps=1, flow="lucas-kanade", jitter=9)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {}, "one flow": {"trust": "correlation"}, "photometric": {"trust": "photometric"},
    "full trust": {"trust": "full"}, "both flows": {"trust": "forward-backward"}, "no flow": {"flow": "none"},
    "legibility": {"legibility": 0.6}, "consistency": {"consistency": 0.7}, "stillness": {"stillness": 3.0},
    "steps": {"steps": 2, "octaves": 3, "octave_scale": 1.3}, "channels": {"layers": "conv2d_3[5,7]:0.5,conv2d_2"},
    "terms": {"tv": 0.1, "l2": 0.1}, "guide": {"guide": "picture"},
    "style": {"style": "picture", "style_weight": 1.0, "style_layers": "conv2d_2"},
    "mask": {"mask": "picture"}, "original colours": {"original_colors": True}, "strength": {"strength": 0.4},
    "no jitter": {"jitter": 0}, "never cut": {"cut": 0.0}}


@pytest.fixture()
def device(eager: Backend) -> Dreamer:
    return Dreamer(models.get("inception_v3"), eager, field_height=96, frame_path="device")


@pytest.fixture(scope="module")
def frames(world: Path) -> list[Picture]:
    """Twelve of a real clip, 270 lines."""
    with open_source(str(world)) as source:
        return [frame.image for frame, _ in zip(source, range(12), strict=False)]


def shown(dreamer: Dreamer, frames: list[Picture], settings: DreamSettings, **options: Any
          ) -> Iterator[tuple[DreamState, Picture]]:
    """Each next state, on the host, and the dream."""
    state = DreamState()
    for number, image in enumerate(frames):
        state, pending = dreamer.submit(state, Frame(image, number / 30), settings,
                                        options=replace(dreamer.options, **options))
        yield state.to_host(), pending.result()


@pytest.mark.parametrize(("kind", "in_turn"), [
    *(pytest.param(kind, False, marks=[pytest.mark.soak] if kind == "guide" else []) for kind in KINDS),
    ("plain", True), ("mask", True)])
def test_a_dream_on_the_device_differs_from_the_processor_s(
        kind: str, in_turn: bool, dreamer: Dreamer, device: Dreamer, frames: list[Picture], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    images.write_image(str(path), frames[-1])
    given: dict[str, Any] = {name: str(path) if value == "picture" else value for name, value in KINDS[kind].items()}
    settings = replace(SETTINGS, **given)
    pairs = zip(shown(dreamer, frames[:3], settings, cycle_octaves=in_turn),
                shown(device, frames[:3], settings, cycle_octaves=in_turn), strict=True)
    for number, ((expected, picture), (state, dream)) in enumerate(pairs):
        assert state.index == expected.index and state.cuts == expected.cuts
        difference = np.abs(picture.astype(int) - dream)
        # rounding grows from step to step
        assert np.percentile(difference, 99) <= (2 if number == 0 or kind != "steps" else 8), (kind, number)
        assert number or difference.max() <= (2 if kind == "plain" else 12), kind
        assert expected.residual is not None and state.residual is not None and expected.maturity is not None
        assert np.sqrt(np.mean(state.residual**2)) == pytest.approx(np.sqrt(np.mean(expected.residual**2)), rel=0.03)
        assert state.maturity is not None and np.abs(expected.maturity - state.maturity).mean() < 0.01


def test_a_cut_on_the_device_is_dreamed_otherwise(dreamer: Dreamer, device: Dreamer, frames: list[Picture],
                                                  lion: Picture) -> None:
    other = np.ascontiguousarray(np.tile(lion, (2, 2, 1))[:270, :480])
    pair = [list(shown(each, [*frames[:2], other, other], SETTINGS)) for each in (dreamer, device)]
    assert [state.cuts for state, _ in pair[1]] == [state.cuts for state, _ in pair[0]] == [0, 0, 1, 1]
    assert np.abs(pair[0][2][1].astype(int) - pair[1][2][1]).max() <= 2


def test_a_cut_that_nobody_waits_for_keeps_the_old_dream(device: Dreamer, frames: list[Picture], lion: Picture) -> None:
    """Its dream is that of a frame from which on nothing is carried, and grows."""
    other = np.ascontiguousarray(np.tile(lion, (2, 2, 1))[:270, :480])
    settings = replace(SETTINGS, keep=0.999)
    after = list(shown(device, [*frames[:2], *(other,) * 4], settings, cut_on_device=True))
    fresh = list(shown(device, [other, other], replace(settings, warmup_steps=0, regrowth=1)))
    strengths = [float(np.abs(state.residual).mean()) for state, _ in after[2:] if state.residual is not None]
    assert strengths == sorted(strengths)
    assert after[2][0].maturity is not None and after[2][0].maturity.max() < 0.1
    first = fresh[0][0].residual
    assert first is not None and strengths[0] < 5 * float(np.abs(first).mean())


def test_a_live_frame_waits_for_the_device(device: Dreamer, frames: list[Picture]) -> None:
    options = DreamOptions(96, cut_on_device=True)
    state, _ = device.submit(DreamState(), Frame(frames[0], 0.0), SETTINGS, options=options)
    with NoHostWait() as waits:
        device.submit(state, Frame(frames[1], 0.03), SETTINGS, options=options)
    assert waits.count > 100


@pytest.mark.parametrize("cut_on_device", [False, True])
def test_steps_on_the_device_are_not_counted(cut_on_device: bool, device: Dreamer, frames: list[Picture]) -> None:
    counts: list[int] = []
    list(shown(device, frames[:2], SETTINGS, on_step=counts.append, cut_on_device=cut_on_device))
    assert counts == [1, 2, 3, 4, 1, 2]  # two octaves; the first frame has a warm-up step


def test_two_frames_in_flight_mix(device: Dreamer, frames: list[Picture]) -> None:
    alone = [dream for _, dream in shown(device, frames[:4], SETTINGS)]
    state, pending = DreamState(), []
    for image in frames[:4]:
        state, dream = device.submit(state, Frame(image, 0.0), SETTINGS)
        pending.append(dream)
    assert all(np.array_equal(expected, dream.result()) for expected, dream in zip(alone, pending, strict=True))


def test_a_state_that_was_kept_goes_on_otherwise(device: Dreamer, frames: list[Picture]) -> None:
    whole = list(shown(device, frames[:5], SETTINGS))
    state = whole[2][0]
    for image, (_, expected) in zip(frames[3:5], whole[3:], strict=True):
        state, pending = device.submit(state, Frame(image, 0.0), SETTINGS)
        assert np.array_equal(pending.result(), expected)


def test_a_change_of_path_loses_the_dream(device: Dreamer, frames: list[Picture], caplog: pytest.LogCaptureFixture
                                          ) -> None:
    """A flow that only the processor has changes the path in the middle of a run, and back."""
    state = DreamState()
    strengths = []
    for image, flow in zip(frames, ["lucas-kanade"] * 3 + ["dis"] * 3 + ["auto"] * 3, strict=False):
        settings = replace(SETTINGS, flow=flow)
        assert device.on_device(settings) == (flow != "dis")
        state, pending = device.submit(state, Frame(image, 0.0), settings)
        strengths.append(float(np.abs(pending.residual()).mean()))
    assert state.cuts == 0
    assert [record.levelname for record in caplog.records if "the flow dis runs on the processor only" in record.message
            ] == ["WARNING"]
    assert all(later > 0.8 * before for before, later in pairwise(strengths))


def test_a_change_of_size_loses_the_dream(device: Dreamer, frames: list[Picture]) -> None:
    state, _ = device.submit(DreamState(), Frame(frames[0], 0.0), SETTINGS)
    before = state.to_host().residual
    smaller = state.resized(80, 142).to_host()
    assert before is not None and smaller.residual is not None and smaller.grey is not None
    assert smaller.residual.shape == (80, 142, 3) and smaller.grey.shape == (80, 142)
    assert np.abs(smaller.residual).mean() == pytest.approx(np.abs(before).mean(), rel=0.3)


def test_a_fading_dream_on_the_device_is_as_old_as_before(device: Dreamer, frames: list[Picture]) -> None:
    state, pending = device.submit(DreamState(), Frame(frames[0], 0.0), SETTINGS)
    pending.result()
    faded, expected = state.faded(0.5).to_host(), state.to_host().faded(0.5)
    for name in ("residual", "grey", "doubt", "maturity"):
        np.testing.assert_array_equal(getattr(faded, name), getattr(expected, name))


def test_a_mask_is_sent_again_with_each_picture_of_a_guide(device: Dreamer, frames: list[Picture],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def recorded(*given: Any) -> Tensor:
        sent.append(given)
        return to_planes(*given)

    monkeypatch.setattr(device_dreamer, "to_planes", recorded)
    mask, state, counts = Mask(np.full((9, 16), 255, np.uint8)), DreamState(), []
    for frame in frames[:2]:
        state, pending = device.submit(state, Frame(frame, 0.0), SETTINGS, References(guide=frame, mask=mask))
        pending.result()
        counts.append(len(sent))
    assert counts[0] == counts[1] > 0


def test_levels_for_a_page_are_not_what_the_dream_adds(device: Dreamer, frames: list[Picture]) -> None:
    _, pending = device.submit(DreamState(), Frame(frames[0], 0.0), SETTINGS, options=DreamOptions(96, levels=True))
    halves, expected = pending.result(), pending.residual() * 127.5
    assert halves.shape == (2 * 96, expected.shape[1], 3)
    assert np.abs(halves[:96].astype(float) - halves[96:] - expected).max() <= 0.51


def test_an_error_on_the_device_is_not_the_processor_s(device: Dreamer, dreamer: Dreamer, frames: list[Picture]
                                                       ) -> None:
    settings = replace(SETTINGS, layers="mixed5", octaves=5)
    texts = []
    for each in (device, dreamer):
        with pytest.raises(FieldTooSmall) as error:
            each.submit(DreamState(), Frame(frames[0], 0.0), settings)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_a_backend_of_steps_only_dreams_on_a_device(eager: Backend) -> None:
    kind = type("StepsOnly", (), {"name": "openvino", "device": torch.device("cpu"), "compile": eager.compile})
    steps_only: Any = kind()
    with pytest.raises(SettingsError, match="--frame-path device cannot be used by openvino"):
        Dreamer(models.get("inception_v3"), steps_only, frame_path="device")
    assert not Dreamer(models.get("inception_v3"), steps_only, frame_path="auto").on_device(SETTINGS)


def test_dreamers_on_one_backend_prepare_the_same_frame_twice(eager: Backend, frames: list[Picture],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of a server share what is prepared."""
    made: list[Any] = []
    compile_function: Callable[..., Any] = eager.compile_function  # type: ignore[attr-defined]

    def counted(work: Callable[..., Any], *args: Any) -> Any:
        made.append(work)
        return compile_function(work, *args)

    monkeypatch.setattr(eager, "compile_function", counted)
    settings = replace(SETTINGS, layers="conv2d_2")
    for _ in range(3):
        list(shown(Dreamer(models.get("inception_v3"), eager, 64, frame_path="device"), frames[:3], settings))
    assert len(made) == 2  # the match and the rest


def test_every_precision_runs_whole_frames(frames: list[Picture]) -> None:
    backend = backends.create("eager", models.get("inception_v3"), "cpu", "bf16")
    dreamer = Dreamer(models.get("inception_v3"), backend, 64, frame_path="device")
    states = [state for state, _ in shown(dreamer, frames[:2], SETTINGS)]
    assert states[1].residual is not None and np.isfinite(states[1].residual).all()


def test_two_streams_in_a_batch_dream_otherwise_than_alone(eager: Backend, frames: list[Picture], lion: Picture
                                                           ) -> None:
    """The frame function itself: one stream is carried on, the other begins."""
    spec = FrameSpec((64, 96), ((48, 64), (64, 96)), 1, "lucas-kanade", "correlation", False, False)
    objective, shape = from_settings(SETTINGS, models.get("inception_v3")), GradientShape.of(SETTINGS)
    functions: Any = eager
    steps = [functions.step_function(StepSpec(objective.structure, *size, shape)) for size in spec.octaves]
    pictures = [cv2().resize(image, (96, 64)) for image in (frames[0], lion)]
    images = torch.from_numpy(np.stack(pictures))
    before = torch.from_numpy(np.stack([cv2().resize(image, (96, 64)) for image in (frames[1], lion)]))
    random = torch.Generator().manual_seed(3)
    state = FrameState(torch.randn(2, 3, 64, 96, generator=random) * 0.1, device_frame.to_field(before, 64, 96)[1],
                       torch.ones(2, 1, 8, 12), torch.rand(2, 1, 64, 96, generator=random),
                       torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
    values = torch.tensor([device_frame.numbers_of(SETTINGS, False)] * 2)
    shifts = torch.tensor([[3, -4], [-7, 2]])

    def dream(which: slice) -> Tensor:
        numbers, of_state = device_frame.unpack(values[which]), FrameState(*(part[which] for part in state))
        field, found = device_frame.match_frame(spec, images[which], of_state.grey, of_state.started, numbers.cut)
        begun = device_frame.begin(spec, field, found, of_state, numbers)
        dreamed = device_frame.ascend_pass(spec, steps, begun.seed, begun.gain, begun.step_size, shifts)
        return device_frame.finish(spec, field, begun, dreamed, numbers)[0]

    with torch.no_grad():
        together, alone = dream(slice(0, 2)), torch.cat([dream(slice(0, 1)), dream(slice(1, 2))])
    assert (together - alone).abs().max() < 1e-3 and together.std() > 0.05
