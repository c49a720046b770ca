"""Variants of files as people have them: transparency of WebM, recordings joined in any order, play lists."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from support.clips import Clip, make
from support.commands import here, streamdream

CHEAP = ["--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--steps", "1",
         "--layers", "conv2d_2", "--strength", "0"]


def pictures(path: Path | str) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def transparent_webm(path: Path, codec: str) -> str:
    """Six red pictures, whose left half is transparent."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25, options={"auto-alt-ref": "0", "crf": "4", "b": "2M"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for number in range(6):
            image = np.full((64, 96, 4), (220, 20, 20, 255), np.uint8)
            image[:, :48, 3] = 0
            picture = av.VideoFrame.from_ndarray(image, "rgba").reformat(format="yuva420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_the_transparency_of_webm_is_read_also_behind_a_seek(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                             codec: str) -> None:
    source, output = transparent_webm(tmp_path / "sticker.webm", codec), tmp_path / "sticker.mkv"
    for more, count in ([], 6), (["-ss", "0.08", "-y"], 4):
        run = here(capsys, "render", source, "-o", output, "-c:v", "ffv1", *CHEAP, *more)
        assert run.returncode == 0, run.stderr
        frames = pictures(output)
        alpha = np.array([frame.to_ndarray(format="rgba")[..., 3] for frame in frames])
        assert frames[0].format.name == "yuva420p" and len(frames) == count
        assert alpha[:, :, :40].max() < 8 and alpha[:, :, 56:].min() > 247


def test_the_loss_of_the_transparency_of_webm_is_said_and_not_claimed(capsys: pytest.CaptureFixture[str],
                                                                      tmp_path: Path) -> None:
    source, output = transparent_webm(tmp_path / "sticker.webm", "libvpx-vp9"), tmp_path / "dream.webm"
    run = here(capsys, "render", source, "-o", output, *CHEAP)
    assert run.returncode == 0 and "transparency" in run.stderr
    with av.open(str(output)) as container:
        assert "alpha_mode" not in {key.lower() for key in container.streams.video[0].metadata}


def test_recordings_joined_against_the_order_of_their_clocks_are_not_called_damaged(
        capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    joined, output = tmp_path / "joined.ts", tmp_path / "joined.mp4"
    for offset in 100, 7, 50:
        part = tmp_path / f"{offset}.ts"
        make_ts(part, offset)
        joined.write_bytes((joined.read_bytes() if joined.exists() else b"") + part.read_bytes())
    run = here(capsys, "render", joined, "-o", output, *CHEAP)
    assert run.returncode == 0 and "damaged" not in run.stderr, run.stderr
    assert len(pictures(output)) == 30


def make_ts(path: Path, offset: int) -> None:
    """Ten pictures of H.264, whose clock begins at ``offset`` seconds."""
    with av.open(str(path), "w", format="mpegts") as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"bf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * number, np.uint8), "rgb24")
            picture.pts, picture.time_base = offset * 25 + number, Fraction(1, 25)
            output.mux(stream.encode(picture.reformat(format="yuv420p")))
        output.mux(stream.encode())


def test_a_play_list_is_refused_with_a_way_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "film.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n")
    run = here(capsys, "render", tmp_path / "film.m3u8", "-o", tmp_path / "film.mp4", *CHEAP)
    assert run.returncode == 1 and "play list" in run.stderr and "http" in run.stderr


def test_a_bit_rate_that_changes_nothing_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = make(tmp_path / "clip.mp4", Clip(frames=5, audio="aac"))
    run = here(capsys, "render", source, "-o", tmp_path / "dream.mp4", "-b:a", "64k", *CHEAP)
    assert run.returncode == 0 and "-b:a 64k changes nothing" in run.stderr
    run = here(capsys, "render", source, "-o", tmp_path / "other.mp4", "-b:a", "64k", "-c:a", "aac", *CHEAP)
    assert run.returncode == 0 and "-b:a" not in run.stderr


def test_a_number_that_the_encoder_does_not_take_is_a_mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path
                                                              ) -> None:
    source = make(tmp_path / "clip.mp4", Clip(frames=2))
    run = here(capsys, "render", source, "-o", tmp_path / "dream.mp4", "-e", "bf=-5", *CHEAP)
    assert run.returncode == 2 and "bf=-5" in run.stderr and "cannot run here" not in run.stderr


def test_animations_show_no_picture_so_shortly_that_browsers_slow_it_down(capsys: pytest.CaptureFixture[str],
                                                                          tmp_path: Path) -> None:
    for rate, count in (120, 31), (60, 30):  # in half a second
        source = make(tmp_path / f"{rate}.mp4",
                      Clip(frames=rate // 2, rate=Fraction(rate), time_base=Fraction(1, rate)))
        for kind in "webp", "apng":
            output = tmp_path / f"{rate}.{kind}"
            run = here(capsys, "render", source, "-o", output, *CHEAP)
            assert run.returncode == 0 and ("left out" in run.stderr) == (rate > 60), run.stderr
            durations = durations_of(output)
            assert min(durations) >= 16 and abs(sum(durations) - 500) <= 8 and abs(len(durations) - count) <= 1


def durations_of(path: Path) -> list[float]:
    """Of an animation, in milliseconds."""
    durations = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            durations.append(image.info["duration"])
    return durations


@pytest.mark.parametrize("kind", ["pcm_s24le", pytest.param("flac", marks=pytest.mark.soak)])
def test_eight_channels_are_encoded_in_whatever_order_a_file_has_them(tmp_path: Path, kind: str) -> None:
    """QuickTime lists the channels of 7.1 in an order of its own. In a process of its own: PyAV could end it."""
    source, output = tmp_path / ("eight.mov" if kind.startswith("pcm") else "eight.mkv"), tmp_path / "dream.mp4"
    with av.open(str(source), "w") as file:
        video: Any = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound: Any = file.add_stream(kind, rate=48000, layout="7.1")
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), "rgb24")
            picture.pts = number
            file.mux(video.encode(picture))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8 * 19200), np.int32), "s32", "7.1")
        silence.sample_rate, silence.pts = 48000, 0
        file.mux([*video.encode(None), *sound.encode(silence), *sound.encode(None)])
    run = streamdream("render", source, "-o", output, "-c:a", "aac", *CHEAP)
    assert run.returncode == 0, run.stderr
    with av.open(str(output)) as dream:
        assert dream.streams.audio[0].codec_context.name == "aac"
        assert dream.streams.audio[0].codec_context.layout.nb_channels == 8
