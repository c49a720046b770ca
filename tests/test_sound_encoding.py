"""Sound that the output cannot hold, or that its players do not know, is encoded: all of it, in time, and said."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from support.commands import fails, here
from support.sink_outputs import copy
from support.tracks import FRAMES, HEARD_RATE, RATE, Track, codecs, delay_of, film, hear

from streamdream.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
CHEAP = ("--backend", "eager", "--precision", "fp32", "--threads", "1", "--field-height", "48", "--octaves", "1",
         "--steps", "1", "--layers", "conv2d_2")
SOURCES = {
    "adpcm.avi": Track("adpcm_ima_wav"), "adpcm_ms.avi": Track("adpcm_ms", 22_050), "wma.wmv": Track("wmav2"),
    "amr.3gp": Track("libopencore_amrnb", 8000), "u8.avi": Track("pcm_u8", 11_025),
    "mulaw.avi": Track("pcm_mulaw", 8000), "s24.mov": Track("pcm_s24le", 48_000), "vorbis.mkv": Track("vorbis",
                                                                                                      layout="stereo"),
    "alac.mov": Track("alac"), "flac.mkv": Track("flac", 96_000), "opus.mp4": Track("libopus", 48_000),
    "ac3.mkv": Track("ac3", 48_000), "mp2.mpg": Track("mp2"), "aac.mp4": Track("aac"), "mp3.avi": Track("libmp3lame"),
    "surround.mp4": Track("aac", 48_000, "5.1"), "late.mov": Track("pcm_s16le", start=0.4, seconds=0.8),
}
OFTEN = ("s24.mov", "surround.mp4", "late.mov")
"""Into .mov and .mkv, too, in every run of the tests."""
KNOWN = {
    "mp4": {"aac", "alac", "flac", "opus", "mp3", "ac3"},
    "mov": {"aac", "alac", "mp3", "ac3", "pcm_s16le", "pcm_s24le", "pcm_mulaw"},
    "mkv": {"aac", "alac", "flac", "opus", "mp3", "ac3", "mp2", "vorbis", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
    "avi": {"aac", "mp3", "ac3", "mp2", "pcm_s16le", "pcm_s24le", "pcm_mulaw", "pcm_u8"},
}
ENCODED = {"mp4": "aac", "mov": "aac", "mkv": "opus", "webm": "opus", "avi": "mp3"}


@pytest.fixture(scope="module")
def films(folder: Path) -> Any:
    made: dict[str, str] = {}

    def get(name: str) -> str:
        if name not in made:
            codec = {"avi": "mpeg4", "wmv": "wmv2", "mpg": "mpeg2video"}.get(name[-3:], "mpeg4")
            made[name] = film(folder / name, SOURCES[name], video_codec=codec)
        return made[name]

    return get


@pytest.mark.parametrize(("name", "suffix"), [
    pytest.param(name, suffix, marks=() if suffix in ("mp4", "webm", "avi") or name in OFTEN else pytest.mark.soak)
    for name in SOURCES for suffix in KNOWN])
def test_sound_arrives_whole_in_time_and_known_to_players(tmp_path: Path, films: Any, name: str, suffix: str) -> None:
    path = films(name)
    sink = copy(path, tmp_path / f"a.{suffix}")
    (before,), (after,) = codecs(path), codecs(tmp_path / f"a.{suffix}")
    assert after in KNOWN[suffix]
    lines = [line for line in sink.warnings if "is encoded as" in line]
    if before in KNOWN[suffix] and not (suffix == "avi" and name == "late.mov"):
        assert (after, lines) == (before, [])
    else:
        assert after == ("ac3" if (name, suffix) == ("surround.mp4", "avi") else ENCODED[suffix])
        assert len(lines) == 1 and f"(audio {before}" in lines[0]
    original, sound = hear(path), hear(tmp_path / f"a.{suffix}")
    packet = 1152 / min(SOURCES[name].rate, 44_100)
    assert abs(len(sound) - len(original)) / HEARD_RATE <= packet + 0.002
    assert abs(delay_of(sound, original)) <= (packet if suffix == "avi" and not lines else 0.003)


def test_a_wrong_time_does_not_become_hours_of_silence(tmp_path: Path) -> None:
    """Of one packet: ten hours later than it should be."""
    path = str(tmp_path / "in.mkv")
    with av.open(film(tmp_path / "made.mkv", Track("pcm_s16le", seconds=4))) as file, av.open(path, "w") as output:
        twins = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in file.streams}
        for packet in file.demux():
            if packet.size and packet.pts is not None:
                if packet.stream.type == "audio" and 3000 < packet.pts < 3024:
                    packet.pts = 36_000_000  # Matroska does not store decode times, which stay in order
                packet.stream = twins[packet.stream_index]
                output.mux(packet)
    copy(path, tmp_path / "a.webm")
    assert len(hear(tmp_path / "a.webm")) / HEARD_RATE == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi"])
def test_all_channels_and_languages_are_kept(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / "in.mkv", Track("pcm_s32le", 48_000, "5.1", language="eng"),
                Track("pcm_u8", 48_000, "stereo", language="deu"))
    copy(path, tmp_path / f"a.{suffix}", RenderSettings(audio_codec="auto" if suffix != "avi" else "ac3"))
    with av.open(str(tmp_path / f"a.{suffix}")) as file:
        assert [stream.codec_context.layout.nb_channels for stream in file.streams.audio] == [6, 2]
        assert suffix == "avi" or [stream.language for stream in file.streams.audio] == ["eng", "deu"]


@pytest.mark.parametrize("span", [{"start": 0.5}, {"start": 0.3, "duration": 0.4}, {"end": 0.7}])
@pytest.mark.parametrize("name", ["u8.avi", "alac.mov", "aac.mp4", "vorbis.mkv"])
def test_a_part_is_exact_to_the_sample(tmp_path: Path, films: Any, name: str, span: dict[str, float]) -> None:
    copy(films(name), tmp_path / "a.mov", RenderSettings(audio_codec="pcm_s16le", **span))  # type: ignore[arg-type]
    start, end = span.get("start", 0.0), min(span.get("start", 0) + span.get("duration", 9), span.get("end", 9))
    original = hear(films(name))[round(start * HEARD_RATE): round(min(end, FRAMES / RATE) * HEARD_RATE)]
    sound = hear(tmp_path / "a.mov")
    assert len(sound) == pytest.approx(len(original), abs=0.03 * HEARD_RATE if end == 9 else 2)
    # Matroska has times in ms; else it is one sample at 11 kHz.
    assert abs(delay_of(sound, original)) <= (0.0006 if name.endswith("mkv") else 0.0002)


def test_encoder_and_bit_rate_are_chosen(tmp_path: Path, films: Any) -> None:
    sizes = []
    for rate in ("32k", "160k"):
        sink = copy(films("aac.mp4"), tmp_path / "a.mkv", RenderSettings(audio_codec="opus", audio_bit_rate=rate), True)
        assert codecs(tmp_path / "a.mkv") == ["opus"] and sink.warnings == []  # it was asked for
        sizes.append((tmp_path / "a.mkv").stat().st_size)
    assert sizes[1] > sizes[0] + 8000
    copy(films("adpcm.avi"), tmp_path / "a.mkv", RenderSettings(audio_codec="copy"), True)
    assert codecs(tmp_path / "a.mkv") in (["adpcm_ima_wav"], [])
    copy(films("aac.mp4"), tmp_path / "a.mkv", RenderSettings(no_audio=True), True)
    assert codecs(tmp_path / "a.mkv") == []


@pytest.mark.parametrize(("flags", "parts"), [
    (("-c:a", "foo"), ("unknown sound encoder 'foo'", "auto, copy, aac")),
    (("-c:a", "libx264"), ("an encoder for video", "auto, copy, aac")),
    (("-c:a", "vorbis", "-o", "a.mov"), ("mov cannot hold sound of vorbis", "auto, copy, aac")),
    (("-c:a", "flac", "-o", "a.mov"), ("mov cannot hold sound of flac", "auto, copy, aac")),
    (("-c:a", "pcm_u8"), ("mp4 cannot hold sound of pcm_u8", "auto, copy, aac")),
    (("-b:a", "loud"), ("-b:a is 'loud'", "160k")),
    (("-b:a", "1"), ("-b:a is '1'", "from 6k to 6M")),
])
def test_wrong_flags_tell_what_is_legal(tmp_path: Path, films: Any, capsys: pytest.CaptureFixture[str],
                                        flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    fails(here(capsys, "render", films("aac.mp4"), "-o", tmp_path / "a.mp4", *CHEAP, *flags), 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_it_is_said_once_before_the_render_and_by_a_dry_run(tmp_path: Path, films: Any,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    command = ("render", films("adpcm.avi"), "-o", tmp_path / "a.mp4", *CHEAP, "--chunk-frames", "8")
    result = here(capsys, *command)
    lines = [number for number, line in enumerate(result.stderr.splitlines()) if "is encoded as aac" in line]
    began = next(number for number, line in enumerate(result.stderr.splitlines()) if "→" in line)
    assert len(lines) == 1 and lines[0] < began
    assert codecs(tmp_path / "a.mp4") == ["aac"]
    assert abs(delay_of(hear(tmp_path / "a.mp4"), hear(films("adpcm.avi")))) < 0.002
    assert "audio adpcm_ima_wav: encoded as aac" in here(capsys, *command, "-y", "--dry-run").stdout


def test_sound_of_a_codec_that_nobody_knows_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the second track of an iPhone's spatial sound."""
    path = Path(film(tmp_path / "in.mov", Track("aac"), Track("aac")))
    data = bytearray(path.read_bytes())
    entry = data.index(b"mp4a", data.rindex(b"stsd"))
    data[entry: entry + 4] = b"apac"
    wave = data.find(b"wave", entry)
    if wave > 0:
        data[wave: wave + 4] = b"wavX"
    path.write_bytes(data)
    with av.open(str(path)) as file:
        assert [stream.codec_context is None for stream in file.streams] == [False, False, True]
    for suffix in ("mp4", "mov", "mkv", "webm", "avi", "gif"):
        sink = copy(str(path), tmp_path / f"a.{suffix}")
        assert len(codecs(tmp_path / f"a.{suffix}")) == (suffix != "gif")
        assert sum("stream 2" in line and "audio of an unknown codec" in line and "left out" in line
                   for line in sink.warnings) == 1
    result = here(capsys, "render", path, "-o", tmp_path / "b.mp4", *CHEAP, "--dry-run")
    assert result.returncode == 0 and "audio of an unknown codec: left out" in result.stdout
