"""Decoding on a GPU gives what software gives, and where the GPU fails, software goes on. The GPU is pretended."""
from __future__ import annotations

import json
import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamdream_bench import device_codecs
from support.clips import Clip, make, truncated
from support.commands import here
from support.planned_renders import assert_same, job, moving, render
from support.pretended_gpu import PretendedGpu

from streamdream.errors import UsageError
from streamdream.media import hardware_decoding, planes
from streamdream.media.hardware_decoding import IN_SOFTWARE, MAX_CORES, Hwaccel
from streamdream.media.sources.live import open_live
from streamdream.media.sources.video import open_source
from streamdream.settings import LiveSettings

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

CUDA, AUTO = Hwaccel("cuda"), Hwaccel("auto", "auto")
FRAMES = 40
FULL_RANGE = (6, 6, 6, 2)
KINDS: dict[str, tuple[str, Clip]] = {
    "h264": (".mp4", Clip(FRAMES)),
    "h264 of the full range": (".mp4", Clip(FRAMES, pixels="yuvj420p", color=FULL_RANGE)),
    "hevc of 10 bits": (".mkv", Clip(FRAMES, codec="libx265", pixels="yuv420p10le")),
    "vp9": (".webm", Clip(FRAMES, codec="libvpx-vp9", time_base=Fraction(1, 1000), pts=range(0, 33 * FRAMES, 33))),
    "vp9 with colours in its container": (".webm", Clip(FRAMES, codec="libvpx-vp9", color=(9, 9, 16, 1),
                                                        time_base=Fraction(1, 1000), pts=range(0, 33 * FRAMES, 33))),
    "a phone's, turned": (".mp4", Clip(FRAMES, rotation=(90, False, False))),
    "open groups": (".ts", Clip(FRAMES, options={"crf": "4", "g": "12", "bf": "3", "x264-params": "open-gop=1"})),
    "odd size": (".mp4", Clip(FRAMES, size=(66, 50))),
}


@pytest.fixture(scope="module")
def clips(folder: Path) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def path_of(kind: str) -> str:
        suffix, clip = KINDS[kind]
        if kind not in made:
            made[kind] = make(folder / f"clip{len(made)}{suffix}", clip, moving(FRAMES, clip.size))
        return made[kind]

    return path_of


def read(path: str, hwaccel: Hwaccel = IN_SOFTWARE, **span: Any) -> tuple[list[tuple[Any, ...]], Any]:
    """What is in each frame, and the source."""
    with open_source(path, hwaccel=hwaccel, **span) as source:
        source.deliver_pictures(source.height, source.width)
        frames = [(frame.pts, source.pixel_format, planes.checksum(frame.picture), frame.image.tobytes(),
                   frame.position) for frame in source]
        assert list(source) == []
    return frames, source


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0.0, 0.7])
def test_a_gpu_gives_the_frames_of_software(clips: Callable[[str], str], kind: str, start: float,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    expected, software = read(clips(kind), start=start)
    gpu = PretendedGpu().install(monkeypatch)
    frames, source = read(clips(kind), CUDA, start=start)
    assert frames == expected and len(frames) >= FRAMES // 2 - 4
    assert gpu.pictures >= len(frames) and source.decoder == "cuda" and software.decoder == "software"
    assert source.warnings == software.warnings == [] and source.last_duration == software.last_duration


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails_after", [0, 1, 29])
def test_software_goes_on_where_the_gpu_fails(clips: Callable[[str], str], kind: str, fails_after: int,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = read(clips(kind))
    gpu = PretendedGpu(fails_after).install(monkeypatch)
    frames, source = read(clips(kind), CUDA)
    assert frames == expected and gpu.opened == 1
    assert source.decoder == "software"
    assert [warning.partition(" is decoded in software, not with --hwaccel cuda: the device failed")[1] != ""
            for warning in source.warnings] == [True]


@pytest.mark.parametrize("fails_after", [0, 5, 25])
def test_software_goes_on_behind_a_start(clips: Callable[[str], str], fails_after: int,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = read(clips("h264"), start=0.5)
    PretendedGpu(fails_after).install(monkeypatch)
    assert read(clips("h264"), CUDA, start=0.5)[0] == expected


def test_software_decodes_where_the_gpu_does_not_open(clips: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
                                                      ) -> None:
    expected, _ = read(clips("h264"))
    gpu = PretendedGpu(opens=False).install(monkeypatch)
    frames, source = read(clips("h264"), CUDA)
    assert frames == expected and gpu.opened == 0 and source.decoder == "software"
    assert len(source.warnings) == 1 and "not with --hwaccel cuda" in source.warnings[0]


def test_damage_is_decoded_as_by_software(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = truncated(make(tmp_path / "a.mkv", Clip(FRAMES), moving(FRAMES)), 0.6)
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2:len(data) // 2 + 400] = bytes(400)
    Path(path).write_bytes(data)
    expected, software = read(path)
    PretendedGpu().install(monkeypatch)
    frames, source = read(path, CUDA)
    assert frames == expected
    assert [text for text in source.warnings if "hwaccel" not in text] == software.warnings


def test_pictures_that_change_their_size_are_left_to_software(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [make(tmp_path / f"{width}.ts", Clip(12, size=(width, 48))) for width in (64, 96)]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    expected, software = read(str(path))
    PretendedGpu().install(monkeypatch)
    frames, source = read(str(path), CUDA)
    assert frames == expected and len(frames) == 24
    assert source.decoder == "software" and "change their size" in source.decoder_reason
    assert len(source.warnings) == len(software.warnings) + 1


def darker(picture: Any) -> Any:
    np.frombuffer(picture.planes[0], np.uint8)[100] ^= 1
    return picture


def untimed(picture: Any) -> Any:
    picture.pts = None
    return picture


def bare(picture: Any) -> Any:
    """Without its side data."""
    result = planes.new_picture(picture)
    for old, new in zip(picture.planes, result.planes, strict=True):
        rows = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in (old, new)]
        rows[1][:, :picture.width] = rows[0][:, :picture.width]
    result.key_frame = picture.key_frame
    return result


@pytest.mark.parametrize(("change", "kind", "reason"), [
    (darker, "h264", "another first picture"), (untimed, "h264", "another first picture"),
    (bare, "h264", "the device loses sei_unregistered"),
    (lambda picture: picture.reformat(format="yuv420p"), "h264", "this kind of h264"),
    (lambda picture: picture.reformat(format="nv12", width=32, height=24), "h264", "another first picture"),
])
def test_a_gpu_that_gives_other_pictures_is_not_used(
    clips: Callable[[str], str], change: Any, kind: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = read(clips(kind))
    PretendedGpu(change=change).install(monkeypatch)
    frames, source = read(clips(kind), CUDA)
    assert frames == expected
    assert source.decoder == "software" and reason in source.decoder_reason and len(source.warnings) == 1


def test_what_is_not_defined_bit_for_bit_is_decoded_in_software(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    gpu = PretendedGpu().install(monkeypatch)
    mpeg2 = Clip(9, codec="mpeg2video", rate=Fraction(25), time_base=Fraction(1, 25))
    for name, clip, word in (("a.mpg", mpeg2, "mpeg2"), ("a.mkv", Clip(9, pixels="yuv444p"), "yuv444p")):
        with open_source(make(tmp_path / name, clip), hwaccel=CUDA) as source:
            assert source.decoder == "software" and word in source.warnings[0] and len(list(source)) == 9
    with open_source("lavfi:testsrc=size=64x48:duration=0.2", hwaccel=CUDA) as source:
        assert source.decoder == "software"
    assert gpu.opened == 0


def test_auto_takes_the_gpu_for_large_files_only(tmp_path: Path, clips: Callable[[str], str],
                                                 monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
                                                 ) -> None:
    large = make(tmp_path / "large.mp4", Clip(2, size=(1920, 800), options={"preset": "ultrafast"}))
    PretendedGpu().install(monkeypatch)
    monkeypatch.setattr(hardware_decoding, "usable_cores", lambda: MAX_CORES)
    caplog.set_level(logging.INFO, "streamdream")
    for path, device, decoder in ((large, "auto", "cuda"), (large, "cuda:1", "cuda"), (large, "cpu", "software"),
                                  (clips("h264"), "auto", "software")):
        with open_source(path, hwaccel=Hwaccel("auto", device)) as source:
            assert (source.decoder, source.warnings) == (decoder, [])
            assert bool(source.decoder_reason) is (decoder == "software")
    assert caplog.messages == [f"{large} is decoded with cuda"]
    PretendedGpu(1).install(monkeypatch)
    with open_source(large, hwaccel=AUTO) as source:
        assert len(list(source)) == 2 and source.warnings == []
    assert f"{large} is decoded in software: the device failed" in caplog.messages[-1]
    monkeypatch.setattr(hardware_decoding, "usable_cores", lambda: MAX_CORES + 1)
    with open_source(large, hwaccel=AUTO) as source:
        assert (source.decoder, source.decoder_reason) == ("software", "5 cores decode faster in software")


def test_the_number_of_the_gpu_is_that_of_the_device() -> None:
    assert [Hwaccel("auto", device).number for device in ("auto", "cuda", "cuda:1", "cpu")] == [None, None, "1", None]


def test_a_named_gpu_that_is_not_here_is_one_line(clips: Callable[[str], str], capsys: pytest.CaptureFixture[str],
                                                  tmp_path: Path) -> None:
    if not hardware_decoding.device_failure("cuda"):
        pytest.skip("there is one")
    result = here(capsys, "render", clips("h264"), "-o", tmp_path / "a.mp4", "--hwaccel", "cuda")
    assert result.returncode == 2 and list(tmp_path.iterdir()) == []
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: --hwaccel cuda cannot run here: ")
    assert "here: auto, none" in result.stderr
    with pytest.raises(UsageError, match="this PyAV is built without it"):
        open_live(clips("h264"), hwaccel=Hwaccel("vaapi"))
    result = here(capsys, "render", clips("h264"), "-o", tmp_path / "a.mp4", "--hwaccel", "cdua")
    assert result.returncode == 2 and "cuda" in result.stderr


# -- renders and live runs --


@pytest.fixture(scope="module")
def by_software(clips: Callable[[str], str], folder: Path) -> Path:
    assert render(job(clips("h264"), folder / "software.mkv"))
    return folder / "software.mkv"


@pytest.mark.parametrize("fails_after", [None, 21])
def test_a_render_is_that_of_software(clips: Callable[[str], str], tmp_path: Path, fails_after: int | None,
                                      by_software: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedGpu(fails_after).install(monkeypatch)
    report = render(job(clips("h264"), tmp_path / "a.mkv", hwaccel="cuda"))
    assert report is not None
    assert_same(by_software, tmp_path / "a.mkv")
    assert report.as_json()["decoder"] == ("cuda" if fails_after is None else "software")
    assert bool(report.warnings) is (fails_after is not None)


def test_a_render_that_a_gpu_began_is_resumed_in_software(clips: Callable[[str], str], tmp_path: Path,
                                                          by_software: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        PretendedGpu().install(patch)
        assert render(job(clips("h264"), tmp_path / "a.mkv", hwaccel="cuda"), stop_at=25) is None
    report = render(job(clips("h264"), tmp_path / "a.mkv"))
    assert report is not None and report.resumed_frames >= 16
    assert_same(by_software, tmp_path / "a.mkv")


def test_a_dry_run_says_what_decodes(clips: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    command = ("render", clips("h264"), "-o", tmp_path / "a.mkv", "--dry-run", "--field-height", 48, "--layers",
               "conv2d_3", "--octaves", 1, "--backend", "eager", "--precision", "fp32")
    assert "decoder   software: 64x48 is decoded as fast" in here(capsys, *command).stdout
    PretendedGpu().install(monkeypatch)
    said = json.loads(here(capsys, *command, "--hwaccel", "cuda", "--json").stdout)
    assert (said["decoder"], said["decoder_reason"]) == ("cuda", "")


@pytest.mark.parametrize(("is_url", "fails_after"), [(False, 9), (True, None), (True, 0), (True, 9)])
def test_a_live_source_goes_on_in_software(clips: Callable[[str], str], is_url: bool, fails_after: int | None,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips("h264")
    by_then = read(path)[0][-1][3]
    if is_url:
        from streamdream.media.sources import network

        monkeypatch.setattr(network, "address_of", lambda url: network.Address(url, path, realtime=True))
    gpu = PretendedGpu(fails_after).install(monkeypatch)
    with open_live("http://camera" if is_url else path, LiveSettings(loop=False), CUDA) as source:
        *_, last = (frame.image.tobytes() for frame in source)  # it leaves out what comes too fast
        assert gpu.opened == 1 and last == by_then
        assert source.decoder == ("cuda" if fails_after is None else "software")


# -- the check for a machine with a GPU --


def test_the_check_of_a_gpu_compares_each_frame(clips: Callable[[str], str], monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    path = clips("h264")
    monkeypatch.setattr(device_codecs, "ENCODERS", ("h264_nvenc",))
    result = device_codecs.check_gpu_codecs([path], 20, "vaapi")
    assert result["missing"] == ["vaapi: this PyAV is built without it", "h264_nvenc does not run here"]
    assert result["decode"][0]["frames"] == 20 and result["encode"][0]["psnr_db"] > 30
    gpu = PretendedGpu().install(monkeypatch)
    row = device_codecs.check_gpu_codecs([path], 20)["decode"][0]
    assert (row["decoder"], row["equal"], row["first_difference"]) == ("cuda", True, None)
    gpu.change = lambda picture: darker(picture) if picture.pts == 7 * 512 else picture  # in ticks of the mp4
    assert device_codecs.main([path]) == 1
    said = json.loads(capsys.readouterr().out)["decode"][0]
    assert (said["equal"], said["first_difference"]) == (False, 7)
