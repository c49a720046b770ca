"""Options of encoders, and encoders that run on a GPU."""
from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import av
import pytest
from av.codec.context import CodecContext
from support.clips import Clip, make
from support.picture_copies import copy_pictures

from streamdream.errors import SinkError, StreamdreamError, UnknownName, UsageError
from streamdream.media.sinks import encoders
from streamdream.media.sinks.encoder_options import encoder_options, parse_options, quality_options
from streamdream.media.sinks.encoders import CONTAINERS, encoder_row, find_codec
from streamdream.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("clip") / "in.mp4", Clip(10))


def test_options_reach_the_encoder(tmp_path: Path, clip: str) -> None:
    copy_pictures(clip, tmp_path / "a.mp4", encoder_options="g=2,bf=0,x264-params=aq-mode=2:keyint-min=1")
    with av.open(str(tmp_path / "a.mp4")) as file:
        keys = [packet.is_keyframe for packet in file.demux(video=0) if packet.size]
    assert keys == [True, False] * 5


def test_a_bit_rate_takes_the_place_of_crf(tmp_path: Path, clip: str) -> None:
    copy_pictures(clip, tmp_path / "a.mp4", encoder_options="b=300k")
    data = (tmp_path / "a.mp4").read_bytes()
    assert b"rc=abr" in data and b"bitrate=300" in data


@pytest.mark.parametrize(("text", "wanted"), [
    ("", {}), ("tune=grain", {"tune": "grain"}), ("deblock=1,1,bf=2", {"deblock": "1,1", "bf": "2"}),
    ("x265-params=aq-mode=3:psy-rd=2,g=5", {"x265-params": "aq-mode=3:psy-rd=2", "g": "5"}),
])
def test_options_are_separated_by_commas(text: str, wanted: dict[str, str]) -> None:
    assert parse_options(text) == wanted


@pytest.mark.parametrize(("codec", "options", "error", "words"), [
    ("libx264", "tuna=grain", UnknownName, "unknown option of libx264 'tuna'; did you mean tune"),
    ("libx264", "tune=grian", UsageError, "libx264 refuses this: .*-e tune=grian"),
    ("libx264", "grain", UsageError, "it takes key=value,key=value"),
    ("libx264", "=grain", UsageError, "it takes key=value,key=value"),
    ("libx265", "x265-params=no-such=1", UsageError, "libx265 refuses -e x265-params=no-such=1 .*no-such"),
    ("libx264", "x264-params=no-such=1", UsageError, "libx264 refuses -e x264-params=no-such=1 .*no-such"),
    ("libvpx-vp9", "crff=3", UnknownName, "unknown option of libvpx-vp9 'crff'; did you mean crf"),
])
def test_a_wrong_option_is_never_ignored(tmp_path: Path, clip: str, codec: str, options: str,
                                         error: type[StreamdreamError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        copy_pictures(clip, tmp_path / "a.mkv", codec=codec, encoder_options=options)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_pictures_that_an_encoder_cannot_hold_are_refused(tmp_path: Path) -> None:
    """libx265 would write beyond its memory, and the process would end."""
    narrow = make(tmp_path / "in.mkv", Clip(3, (48, 96), codec="ffv1", pixels="bgr0"))
    with pytest.raises(UsageError, match="libx265 takes pictures of 64 pixels of width or more, not 48; "
                                         "-c:v libx264 can"):
        copy_pictures(narrow, tmp_path / "a.mp4", codec="libx265")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
    hdr = make(tmp_path / "hdr.mkv", Clip(3, (48, 96), codec="ffv1", pixels="yuv420p10le", color=(9, 9, 16, 1)))
    copy_pictures(hdr, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.streams.video[0].codec_context.name == "h264"  # no encoder was named


# -- a GPU --


@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "h264_qsv", "h264_amf"])
def test_a_gpu_encoder_by_name_that_cannot_run_is_one_line(tmp_path: Path, clip: str, codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip("this FFmpeg has none")
    if encoders.runs_here(codec):
        pytest.skip("there is hardware for it")
    with pytest.raises(SinkError, match=f"{codec} cannot run here .*; -c:v libx264 can"):
        copy_pictures(clip, tmp_path / "a.mp4", codec=codec)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def fresh_search() -> Any:
    for function in encoders.find_gpu_encoder, encoders.say_once:
        function.cache_clear()
    yield
    for function in encoders.find_gpu_encoder, encoders.say_once:
        function.cache_clear()


@pytest.mark.usefixtures("fresh_search")
def test_without_a_gpu_the_processor_encodes_with_a_word(tmp_path: Path, clip: str, caplog: pytest.LogCaptureFixture
                                                         ) -> None:
    with mock.patch.object(encoders, "runs_here", return_value=False), caplog.at_level(logging.WARNING):
        copy_pictures(clip, tmp_path / "a.mp4", codec="gpu")
    assert caplog.messages == ["no GPU of this machine encodes for mp4; the processor does"]
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.streams.video[0].codec_context.name == "h264"


@pytest.mark.usefixtures("fresh_search")
@pytest.mark.parametrize(("works", "suffix", "hdr", "wanted"), [
    ("h264_nvenc", ".mp4", False, "h264_nvenc"), ("h264_qsv", ".mkv", False, "h264_qsv"),
    ("hevc_amf", ".mp4", False, "hevc_amf"), ("hevc_nvenc", ".mov", True, "hevc_nvenc"),
    ("h264_nvenc", ".mov", True, "libx265"), ("av1_nvenc", ".webm", False, "av1_nvenc"),
    ("h264_nvenc", ".webm", False, "libvpx-vp9"),
])
def test_the_first_gpu_encoder_that_runs_is_used(works: str, suffix: str, hdr: bool, wanted: str) -> None:
    with mock.patch.object(encoders, "runs_here", side_effect=lambda name: name == works):
        assert find_codec("gpu", CONTAINERS[suffix], hdr).name == wanted


@pytest.mark.parametrize(("name", "wanted"), [
    ("libx264", {"crf": "20"}), ("h264_nvenc", {"rc": "vbr", "cq": "20"}), ("hevc_qsv", {"global_quality": "20"}),
    ("h264_amf", {"rc": "cqp", "qp_i": "20", "qp_p": "20"}), ("prores_ks", {}),
])
def test_every_encoder_is_told_the_quality_in_its_own_words(name: str, wanted: dict[str, str]) -> None:
    context: Any = CodecContext.create(name, "w")
    known = {option.name for option in context.supported_options.private}
    assert quality_options(context, encoder_row(name), 20, known) == wanted
    av1: Any = CodecContext.create("av1_nvenc", "w") if "av1_nvenc" in av.codecs_available else None
    if av1 is not None:  # its scale is longer
        assert quality_options(av1, encoder_row("av1_nvenc"), 60, {"cq"})["cq"] == "60"
        assert quality_options(av1, encoder_row("h264_nvenc"), 60, {"cq"})["cq"] == "51"
    video_toolbox: Any = SimpleNamespace(name="hevc_videotoolbox")
    assert quality_options(video_toolbox, encoder_row("hevc_videotoolbox"), 20, set())["flags"] == "+qscale"


@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_nvenc_takes_the_names_of_speeds_that_x264_has(codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip("this FFmpeg has none")
    context: Any = CodecContext.create(codec, "w")
    offered = {choice.name for option in context.supported_options.private if option.name == "preset"
               for choice in option.choices}
    chosen = []
    for name in encoders.PRESETS:
        options = encoder_options(context, encoder_row(codec), RenderSettings(encoder_preset=name), [])
        assert options["preset"] in offered
        chosen.append(options["preset"])
    assert chosen == sorted(chosen) and len(set(chosen)) == 7
    assert encoder_options(context, encoder_row(codec), RenderSettings(encoder_preset="p6"), [])["preset"] == "p6"
    with pytest.raises(UnknownName, match="p7"):
        encoder_options(context, encoder_row(codec), RenderSettings(encoder_preset="p8"), [])
