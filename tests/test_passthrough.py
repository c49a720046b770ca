"""What a file keeps of its input: times, colours, sound, and all that is in it beside the pictures."""
from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import Clip, add_cover, irregular, make, marked, mux_cover, number_of, packets
from support.sink_outputs import copy, read

from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.video import open_source
from streamdream.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

# -- time --


@pytest.mark.parametrize(("name", "allowed"), [("a.mp4", 0), ("a.mov", 0), ("a.mkv", 0.0005), ("a.webm", 0.0005)])
@pytest.mark.parametrize("first", [0, 12345])
@pytest.mark.parametrize("sound", [False, True])
def test_irregular_times_are_kept(folder: Path, tmp_path: Path, name: str, allowed: float, first: int,
                                  sound: bool) -> None:
    pts = irregular(60, 700, 6000, first)
    path = folder / f"irregular{first}{sound}.mp4"
    if not path.exists():
        make(path, Clip(pts=pts, time_base=Fraction(1, 90000), last_ticks=9000, audio="aac" if sound else None,
                        container_options={"movie_timescale": "90000"}))
    copy(str(path), tmp_path / name)
    wanted, got = read(path), read(tmp_path / name)
    assert [float(time) for time in np.array(pts) / 90000] == pytest.approx([f.pts_seconds for f in wanted])
    assert len(got) == 60
    assert max(abs(a.pts_seconds - b.pts_seconds) for a, b in zip(wanted, got, strict=True)) <= allowed + 1e-9


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif"])
@pytest.mark.parametrize("last", [1, 75])
def test_a_render_keeps_the_length(tmp_path: Path, name: str, last: int) -> None:
    path = make(tmp_path / "in.mkv", Clip(20, last_ticks=last, rate=Fraction(25), time_base=Fraction(1, 25)))
    copy(path, tmp_path / name)
    copy(str(tmp_path / name), tmp_path / "again.mkv")
    for made in (name, "again.mkv"):
        with av.open(str(tmp_path / made)) as file:
            assert (file.duration or 0) / 1e6 == pytest.approx((19 + last) / 25, abs=0.02)


@pytest.mark.parametrize("name", ["a.avi", "a.gif"])
def test_what_cannot_start_late_shows_the_first_frame_from_the_start(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "in.mkv", Clip(pts=range(10, 20), rate=Fraction(25), time_base=Fraction(1, 25)))
    copy(path, tmp_path / name)
    times = [frame.pts_seconds for frame in read(tmp_path / name)]
    assert times == pytest.approx([0, *(n / 25 for n in range(11, 20))])


def test_avi_says_when_times_move(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(pts=irregular(40, 700, 9000), time_base=Fraction(1, 90000)))
    sink = copy(path, tmp_path / "a.avi")
    assert len(read(tmp_path / "a.avi")) == 40
    assert len(sink.warnings) == 1 and ".mkv and .mp4 keep them" in sink.warnings[0]


# -- colour --


def chart(height: int) -> NDArray[np.uint8]:
    """Flat colours above, ramps below."""
    image = np.empty((height, 128, 3), np.uint8)
    for number, color in enumerate([(230, 20, 20), (20, 200, 40), (30, 40, 220), (240, 230, 30), (250, 250, 250),
                                    (5, 5, 5), (128, 60, 190), (10, 180, 180)]):
        image[: height // 2, number * 16: number * 16 + 16] = color
    image[height // 2:] = np.linspace(20, 235, 128)[:, None] * (1, 0.8, 0.6) + (0, 10, 40)
    return image


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi"])
@pytest.mark.parametrize(("tags", "height"), [((6, 6, 6, 1), 64), ((1, 1, 1, 1), 64), ((1, 1, 1, 2), 64),
                                              ((5, 5, 6, 1), 64), ((9, 9, 14, 1), 64), (None, 64), (None, 720)])
def test_a_render_keeps_the_colour_tags(tmp_path: Path, name: str, tags: tuple[int, int, int, int] | None,
                                        height: int) -> None:
    """To a decoder that goes by the tags, and to our own, which assumes the same as players where there are none."""
    image = chart(height)
    path = make(tmp_path / "in.mp4", Clip(3, (128, height), pixels="yuv444p", color=tags), [image] * 3)
    with open_source(path) as source:
        copy(path, tmp_path / name, RenderSettings(crf=0))
        output = open_source(str(tmp_path / name))
        with open_sink(str(tmp_path / f"x{name}"), source, RenderSettings(crf=0)) as sink:
            for frame in source:
                sink.write(image, frame)
    with output:
        assert name == "a.avi" or replace(output.color, tagged=source.color.tagged) == source.color
    decoded: list[Any] = [read(tmp_path / f"x{name}")[1].image]
    if name != "a.avi":
        with av.open(str(tmp_path / f"x{name}")) as file:
            decoded.append(next(file.decode(video=0)).to_ndarray(format="rgb24"))
    for picture in decoded:
        difference = np.abs(picture.astype(int) - image)
        inside = [x for x in range(128) if 4 <= x % 16 < 12]  # colour at half size blurs the borders
        allowed = 6 if name == "a.avi" else 3  # MPEG-4 is lossy even at its best; the wrong matrix is 20 and more
        assert difference[4: height // 2 - 4, inside].max() <= allowed
        assert difference[height // 2 + 4: -4].max() <= allowed


def test_a_render_keeps_the_aspect_ratio(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(3, aspect=Fraction(16, 11)))
    for name in ("a.mp4", "a.mkv"):
        copy(path, tmp_path / name)
        with open_source(str(tmp_path / name)) as source:
            assert source.pixel_aspect == Fraction(16, 11)


def test_rotation_is_baked_in(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(3, rotation=(90, False, False)))
    copy(path, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as file:
        picture = next(file.decode(video=0))
    assert (picture.width, picture.height, picture.rotation) == (48, 64, 0)
    upright = np.rot90(marked(0)).astype(int)
    assert np.abs(picture.to_ndarray(format="rgb24") - upright).mean() < 4


# -- what is copied --


FULL = Clip(30, audio="aac", audio_seconds=1.2, language="deu", metadata={"title": "Traum", "artist": "Fée"},
            chapters=((0, 400, "one"), (400, 1000, "two")))


@pytest.fixture(scope="module")
def full(folder: Path) -> dict[str, str]:
    """One second of picture with everything, as mp4 and mkv."""
    rich = Clip(**{**vars(FULL), "subtitles": ((100, 300, "hello"), (500, 900, "world")), "attachment": b"font" * 50,
                   "container_options": {"avoid_negative_ts": "disabled"}})
    return {"mp4": make(folder / "full.mp4", FULL), "mkv": make(folder / "full.mkv", rich)}


def chapters(file: Any) -> list[tuple[float, float]]:
    return [(float(chapter["start"] * chapter["time_base"]), float(chapter["end"] * chapter["time_base"]))
            for chapter in file.chapters()]


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_a_render_copies_the_sound_packet_by_packet(tmp_path: Path, full: dict[str, str], kind: str, name: str) -> None:
    copy(full[kind], tmp_path / name)
    before, after = packets(full[kind]), packets(str(tmp_path / name))
    assert [data for _, data in before] == [data for _, data in after] and len(before) > 50
    if name != "a.avi":  # which has no time for sound
        assert max(abs(a - b) for (a, _), (b, _) in zip(before, after, strict=True)) <= Fraction(1, 1000)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_a_render_copies_chapters_and_metadata(tmp_path: Path, full: dict[str, str], name: str) -> None:
    copy(full["mp4"], tmp_path / name)
    with av.open(str(tmp_path / name)) as file:
        assert {key.lower(): file.metadata[key] for key in file.metadata}.items() >= FULL.metadata.items()
        assert chapters(file) == [(0, 0.4), (0.4, 1)]
        assert [chapter["metadata"]["title"] for chapter in file.chapters()] == ["one", "two"]
        if name != "a.mov":  # QuickTime knows only numbered languages
            assert [stream.language for stream in (*file.streams.video, *file.streams.audio)] == ["deu", "deu"]
        sound = file.streams.audio[0]
        assert "the sound" in (sound.metadata.get("title"), sound.metadata.get("name"))


def test_a_render_copies_dispositions(tmp_path: Path) -> None:
    path = str(tmp_path / "in.mkv")
    make(tmp_path / "made.mkv", Clip(5, audio="aac"))
    with av.open(str(tmp_path / "made.mkv")) as file, av.open(path, "w") as output:
        twins = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in file.streams}
        twins[1].disposition = av.stream.Disposition.hearing_impaired
        for packet in file.demux():
            if packet.size:
                packet.stream = twins[packet.stream_index]
                output.mux(packet)
    copy(path, tmp_path / "a.mkv")
    with av.open(str(tmp_path / "a.mkv")) as file:
        assert file.streams.audio[0].disposition & av.stream.Disposition.hearing_impaired


def test_a_render_copies_subtitles_and_attachments(tmp_path: Path, full: dict[str, str]) -> None:
    sink = copy(full["mkv"], tmp_path / "a.mkv")
    assert sink.warnings == []
    assert packets(str(tmp_path / "a.mkv"), "subtitle") == packets(full["mkv"], "subtitle")
    assert len(packets(full["mkv"], "subtitle")) == 2
    with av.open(str(tmp_path / "a.mkv")) as file:
        font = file.streams.attachments[0]
        assert (font.name, font.data) == ("font.ttf", b"font" * 50)


@pytest.mark.parametrize(("name", "lost"), [("a.mp4", ["attachment font.ttf"]), ("a.webm", ["attachment font.ttf"]),
                                            ("a.gif", ["audio aac, deu", "subtitle subrip", "attachment font.ttf"])])
def test_what_a_container_cannot_hold_is_named(tmp_path: Path, full: dict[str, str], name: str,
                                               lost: list[str]) -> None:
    sink = copy(full["mkv"], tmp_path / name)
    assert len(read(tmp_path / name)) == 30
    lines = [line for line in sink.warnings if "is encoded as" not in line and "is converted to" not in line]
    for line, what in zip(lines, lost, strict=True):
        assert f"({what})" in line and "cannot hold stream" in line and line.endswith("it is left out")


def test_raw_sound_into_webm(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mkv", Clip(5, audio="pcm_s16le"))
    assert "(audio pcm_s16le)" in copy(path, tmp_path / "a.webm").warnings[0]
    assert copy(path, tmp_path / "a.mov").warnings == []
    joined = (b"".join(data for _, data in packets(str(name))) for name in (path, tmp_path / "a.mov"))
    assert len({*joined}) == 1


def test_a_render_copies_opus_into_webm(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mkv", Clip(20, audio="libopus"))
    assert copy(path, tmp_path / "a.webm").warnings == []
    assert packets(str(tmp_path / "a.webm")) == packets(path)
    assert [f.pts for f in read(tmp_path / "a.webm")] == [f.pts for f in read(path)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("span", [{"start": 0.5}, {"start": 0.3, "duration": 0.4}, {"end": 0.6}])
def test_a_part_is_cut_out(tmp_path: Path, full: dict[str, str], name: str, kind: str, span: dict[str, Any]) -> None:
    copy(full[kind], tmp_path / name, RenderSettings(**span))
    start = span.get("start", 0)
    end = min(start + span.get("duration", 9), span.get("end", 9))
    inside = [(float(time) - start, data) for time, data in packets(full[kind])
              if (time >= start or not start) and time < end]
    after = packets(str(tmp_path / name))
    assert [data for _, data in after] == [data for _, data in inside]
    assert [float(time) for time, _ in after] == pytest.approx([time for time, _ in inside], abs=0.0011)
    frames = read(tmp_path / name)
    assert frames[0].pts == 0 and frames[-1].pts_seconds < end - start
    with av.open(str(tmp_path / name)) as file:
        found = chapters(file)
    wanted = [(max(a - start, 0), min(b, end) - start) for a, b in ((0, 0.4), (0.4, 1)) if b > start and a < end]
    assert found == [pytest.approx(pair, abs=0.002) for pair in wanted]


def test_sound_and_pictures_are_interleaved(tmp_path: Path) -> None:
    """So that players need not look far ahead; and so that nothing is kept in memory."""
    clip = Clip(80, rate=Fraction(5), time_base=Fraction(1, 5), audio="aac", audio_seconds=16)
    copy(make(tmp_path / "in.mp4", clip), tmp_path / "a.mkv")
    latest = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "a.mkv")) as file:
        for packet in file.demux():
            if packet.size and packet.pts is not None:
                latest[packet.stream.type] = float(packet.pts * packet.time_base)
                assert abs(latest["video"] - latest["audio"]) < 1.5


def test_sound_of_a_transport_stream(tmp_path: Path) -> None:
    """Its AAC packets carry a header of 7 bytes each, which other containers keep once."""
    path = make(tmp_path / "in.ts", Clip(30, audio="aac"))
    for name in ("a.mp4", "a.mkv"):
        assert copy(path, tmp_path / name).warnings == []
        before, after = packets(path), packets(str(tmp_path / name))
        assert [data[7:] for _, data in before] == [data for _, data in after]
        with av.open(path) as file:
            start = Fraction(file.start_time or 0, 1_000_000)
        assert float(after[0][0]) == pytest.approx(float(before[0][0] - start), abs=0.001)


def test_longer_sound_is_kept_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(5, audio="aac", audio_seconds=1.5))
    copy(path, tmp_path / "a.mp4")
    assert packets(str(tmp_path / "a.mp4")) == packets(path)


@pytest.mark.parametrize(("name", "kept"), [("a.mp4", True), ("a.m4v", True), ("a.mkv", True), ("a.mov", False),
                                            ("a.avi", False), ("a.webm", False)])
def test_covers_are_kept_or_named(tmp_path: Path, name: str, kept: bool) -> None:
    path = str(tmp_path / "in.mp4")
    make(tmp_path / "made.mp4", Clip(5))
    with av.open(str(tmp_path / "made.mp4")) as file, av.open(path, "w") as output:
        video = output.add_stream_from_template(file.streams.video[0], opaque=True)
        cover = add_cover(output)
        mux_cover(output, cover)
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
    sink = copy(path, tmp_path / name)
    assert [number_of(frame.image) for frame in read(tmp_path / name)] == list(range(5))
    with av.open(str(tmp_path / name)) as file:
        covers = [stream for stream in file.streams.video if stream.disposition & av.stream.Disposition.attached_pic]
        assert len(file.streams.video) == 1 + kept
        for cover in covers:
            assert (next(file.decode(cover)).to_ndarray(format="rgb24") == 77).all()
    assert (len(covers), len(sink.warnings)) == (kept, not kept)


def test_a_second_video_is_left_out(tmp_path: Path) -> None:
    first, path = make(tmp_path / "made.mkv", Clip(5)), str(tmp_path / "in.mkv")
    with av.open(first) as file, av.open(path, "w") as output:
        twins = [output.add_stream_from_template(file.streams.video[0], opaque=True) for _ in range(2)]
        for packet in file.demux(video=0):
            for twin in twins if packet.size else ():
                packet.stream = twin
                output.mux(packet)
    assert "(video h264)" in copy(path, tmp_path / "a.mkv").warnings[0]


def test_the_index_comes_first(tmp_path: Path, full: dict[str, str]) -> None:
    for name in ("a.mp4", "a.mov", "a.m4v"):
        copy(full["mp4"], tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat")
