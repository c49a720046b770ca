"""Videos as recorders, phones and broadcasts make them: interlaced, turned on the way, of several sizes, untagged."""
from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.filter import Graph
from numpy.typing import NDArray
from support.clips import Clip, make, marked, number_of
from support.commands import here

from streamdream.media.frame import Frame, picture_checksum
from streamdream.media.input_container import ColorTags
from streamdream.media.planes import checksum, to_rgb
from streamdream.media.sources.video import FileSource, open_source

SIZE = 96, 64
CHEAP = ["--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--steps", "1",
         "--layers", "conv2d_2"]


def field_of(moment: int) -> NDArray[np.uint8]:
    """A white bar that moves eight pixels from field to field, [64, 96, 3]; lines that stand still, which only the
    pictures before and after tell.
    """
    image = np.full((SIZE[1], SIZE[0], 3), 40, np.uint8)
    image[:, moment * 8 % SIZE[0]: moment * 8 % SIZE[0] + 16] = 220
    image[20:44:6, :16] = 90
    return image


def woven(number: int, top_first: bool = True) -> NDArray[np.uint8]:
    """A picture of two fields, of moments 2 n and 2 n + 1."""
    image = field_of(2 * number)
    image[top_first::2] = field_of(2 * number + 1)[top_first::2]
    return image


def make_interlaced(path: Path, pictures: int = 20, progressive: range = range(0), top_first: bool = True,
                    codec: str = "mpeg2video", gop: int = 6) -> str:
    """Interlaced pictures; those in ``progressive`` are not."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25, options={"flags": "+ilme+ildct", "q": "2", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(pictures):
            is_whole = number in progressive
            image = field_of(2 * number) if is_whole else woven(number, top_first)
            picture = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(as_field(picture, "prog" if is_whole else "tff" if top_first else "bff")))
        output.mux(stream.encode())
    return str(path)


def as_field(picture: Any, order: str) -> Any:
    graph = Graph()
    graph.link_nodes(graph.add_buffer(width=picture.width, height=picture.height, format=picture.format,
                                      time_base=picture.time_base),
                     graph.add("setfield", order), graph.add("buffersink")).configure()
    graph.vpush(picture)
    return graph.vpull()


def combing(image: NDArray[np.uint8]) -> float:
    """How much neighbouring lines differ, in grey levels."""
    return float(np.abs(np.diff(image[4:-4].astype(int), axis=0)).mean())


def pixel_format(frame: Frame) -> str:
    picture: Any = frame.picture
    return str(picture.format.name)


def read(path: str, pictures: bool = False, **options: Any) -> tuple[list[Frame], FileSource]:
    with open_source(path, **options) as source:
        if pictures:
            source.deliver_pictures(source.height, source.width)
        return list(source), source


# -- interlaced --


@pytest.mark.parametrize("top_first", [True, False])
def test_interlaced_pictures_are_made_whole(tmp_path: Path, top_first: bool) -> None:
    path = make_interlaced(tmp_path / "a.mpg", top_first=top_first)
    frames, source = read(path)
    combed, _ = read(path, deinterlace="off")
    assert len(frames) == len(combed) == 20
    assert [frame.pts for frame in frames] == [frame.pts for frame in combed]
    assert max(combing(frame.image) for frame in frames) < 5 < 10 < min(combing(frame.image) for frame in combed)
    errors = [np.abs(frame.image.astype(int) - field_of(2 * number)).mean() for number, frame in enumerate(frames)]
    assert max(errors) < 8, errors  # the other field would differ by 15
    assert len(source.warnings) == 1 and "is interlaced" in source.warnings[0]


def test_only_interlaced_pictures_are_touched(tmp_path: Path) -> None:
    path = make_interlaced(tmp_path / "a.mkv", progressive=range(6, 13), codec="ffv1")
    frames, _ = read(path, pictures=True)
    stored, _ = read(path, pictures=True, deinterlace="off")
    assert len(frames) == 20
    same = [checksum(frame.picture) == checksum(other.picture) for frame, other in zip(frames, stored, strict=True)]
    assert same == [number in range(6, 13) for number in range(20)]
    progressive = make(tmp_path / "b.mp4", Clip(10))
    assert read(progressive)[1].warnings == []
    assert "is interlaced" in read(progressive, deinterlace="on")[1].warnings[0]


def test_what_follows_progressive_pictures_is_the_same_after_a_seek(tmp_path: Path) -> None:
    """Picture 14 is made of 13, too, whether or not there were interlaced ones before."""
    path = make_interlaced(tmp_path / "a.mkv", progressive=range(2, 14), codec="ffv1")
    frames, later = read(path)[0], read(path, start=0.32)[0]
    assert [picture_checksum(frame) for frame in later] == [picture_checksum(frame) for frame in frames[8:]]


@pytest.mark.parametrize("start", [0.24, 0.28, 0.44, 0.48])
@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_deinterlaced_pictures_are_the_same_after_a_seek(tmp_path: Path, name: str, start: float) -> None:
    """Also where the first one is a key frame (12 is): it is made of the one before it, too."""
    path = make_interlaced(tmp_path / name, codec="ffv1" if name == "a.avi" else "mpeg2video")
    first = round(start * 25)
    frames, _ = read(path, deinterlace="on")
    later, _ = read(path, start=start, deinterlace="on")
    assert [picture_checksum(frame) for frame in later] == [picture_checksum(frame) for frame in frames[first:]]


def test_deinterlaced_pictures_are_the_same_when_gone_on_with(tmp_path: Path) -> None:
    path = make_interlaced(tmp_path / "a.mkv", pictures=120)
    frames, _ = read(path, pictures=True)
    for index in (96, 97):
        with open_source(path) as source:
            source.deliver_pictures(source.height, source.width)
            position = frames[index].position
            assert position is not None
            source.resume_at(position, index, picture_checksum(frames[index]))
            assert [checksum(frame.picture) for frame in source] == [checksum(f.picture) for f in frames[index:]]


def test_pixel_formats_that_the_filter_does_not_know_stay_what_they_are(tmp_path: Path) -> None:
    for codec, pixels in (("rawvideo", "yuyv422"), ("png", "rgb24"), ("ffv1", "yuv422p10le")):
        path = make(tmp_path / f"{pixels}.{'mkv' if codec == 'ffv1' else 'mov'}", Clip(4, codec=codec, pixels=pixels))
        frames, source = read(path, pictures=True, deinterlace="on")
        assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3], pixels
        assert source.pixel_format == {"yuyv422": "yuv422p", "rgb24": "gbrp"}.get(pixels, pixels)


# -- size, orientation and colours that change on the way --


def joined(path: Path, *clips: tuple[Clip, list[NDArray[np.uint8]]]) -> str:
    """One after the other, as an H.264 stream."""
    parts = [Path(make(path.with_name(f"{number}-{path.name}"), clip, images)).read_bytes()
             for number, (clip, images) in enumerate(clips)]
    path.write_bytes(b"".join(parts))
    return str(path)


def corner(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Grey, with a white square of a quarter of the height at the top left."""
    image = np.full((size[1], size[0], 3), 128, np.uint8)
    image[:size[1] // 4, :size[1] // 4] = 255
    return image


def test_a_picture_that_turns_is_fitted_upright_with_bars(tmp_path: Path) -> None:
    wide, tall = (128, 64), (64, 128)
    path = joined(tmp_path / "a.h264", (Clip(5, wide), [corner(wide)] * 5), (Clip(5, tall), [corner(tall)] * 5))
    frames, source = read(path, pictures=True)
    assert [frame.discontinuity for frame in frames] == [False] * 5 + [True] + [False] * 4
    for image in (frames[7].image, to_rgb(frames[7].picture)):
        assert image.shape == (64, 128, 3)
        assert image[:, :46].max() < 8 and image[:, 82:].max() < 8  # 32 of 128 columns are the picture
        assert np.abs(image[20:, 50:78].astype(int) - 128).max() < 4
        white = image[..., 1] > 200
        assert (white.any(axis=1).sum(), white.any(axis=0).sum()) == pytest.approx((16, 16), abs=2)
        assert white[:8].any() and not white[24:].any()
    assert len(source.warnings) == 1 and "changes its size or orientation" in source.warnings[0]


def test_a_rotation_that_changes_is_followed(tmp_path: Path) -> None:
    """The first half is stored as it is shown, the second one lies on its side and says so."""
    wide, tall = (128, 64), (64, 128)
    lying = make(tmp_path / "lying.h264", Clip(5, tall), [np.rot90(corner(wide))] * 5)
    turned = tmp_path / "turned.h264"
    with av.open(lying) as source, turned.open("wb") as file:
        stream = source.streams.video[0]
        rotate = BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=270", stream)
        for packet in source.demux(stream):
            for done in rotate.filter(packet if packet.size else None):
                file.write(bytes(done))
    for order in (("wide.h264", "turned.h264"), ("turned.h264", "wide.h264")):
        make(tmp_path / "wide.h264", Clip(5, wide), [corner(wide)] * 5)
        path = tmp_path / "a.h264"
        path.write_bytes(b"".join((tmp_path / name).read_bytes() for name in order))
        frames, source_ = read(str(path), pictures=True)
        assert (source_.width, source_.height, len(frames)) == (128, 64, 10)
        for frame in (frames[2], frames[7]):
            for image in (frame.image, to_rgb(frame.picture)):
                assert np.abs(image.astype(int) - corner(wide)).mean() < 4, order


def test_the_pixel_aspect_counts_when_the_size_changes(tmp_path: Path) -> None:
    """As in a broadcast: 16:9 with wide pixels, then 16:9 with square ones, which fills the frame."""
    first = Clip(5, (64, 64), aspect=Fraction(2, 1))
    path = joined(tmp_path / "a.h264", (first, [corner((64, 64))] * 5),
                  (Clip(5, (128, 64)), [np.full((64, 128, 3), 200, np.uint8)] * 5))
    frames, source = read(path)
    assert source.pixel_aspect == 2
    assert frames[7].image.shape == (64, 64, 3) and frames[7].image.min() > 180
    path = joined(tmp_path / "b.h264", (first, [corner((64, 64))] * 5), (Clip(5, (32, 32)), [corner((32, 32))] * 5))
    columns = np.flatnonzero(read(path)[0][7].image[40, :, 0] > 60)  # as high as the frame, half as wide
    assert (columns[0], columns[-1]) == pytest.approx((16, 47), abs=1)


def test_the_pixel_aspect_is_that_of_the_first_picture_that_is_read(tmp_path: Path) -> None:
    """As in a recording of a broadcast that began before the film."""
    parts = [make(tmp_path / f"{n}.ts", Clip(50, aspect=aspect, rate=Fraction(25), time_base=Fraction(1, 25),
                                             pts=range(n * 50, n * 50 + 50)))
             for n, aspect in enumerate([Fraction(16, 15), Fraction(64, 45)])]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    for start, aspect in ((0, Fraction(16, 15)), (3, Fraction(64, 45))):
        with open_source(str(path), start=start) as source:
            assert source.pixel_aspect == aspect


def test_a_pixel_format_that_changes_is_converted(tmp_path: Path) -> None:
    clips = [(Clip(4, pixels=pixels), [marked(number)] * 4) for pixels, number in (("yuv420p", 170), ("yuv444p", 85))]
    frames, source = read(joined(tmp_path / "a.h264", *clips), pictures=True)
    assert {pixel_format(frame) for frame in frames} == {"yuv420p"}
    assert [number_of(frame.image) for frame in frames] == [170] * 4 + [85] * 4
    assert not any(frame.discontinuity for frame in frames) and source.warnings == []


def test_colours_that_change_are_converted(tmp_path: Path) -> None:
    green = [np.full((48, 64, 3), (30, 200, 60), np.uint8)] * 4
    clips = [(Clip(4, color=color), green) for color in ((6, 6, 6, 1), (1, 1, 1, 1))]
    frames, _ = read(joined(tmp_path / "a.h264", *clips), pictures=True)
    larger = [np.full((720, 1280, 3), (30, 200, 60), np.uint8)] * 4
    clips = [(Clip(4, color=(6, 6, 6, 1), tagged=False), green),
             (Clip(4, (1280, 720), color=(1, 1, 1, 1), tagged=False), larger)]
    untagged, _ = read(joined(tmp_path / "b.h264", *clips), pictures=True)
    assert np.abs(to_rgb(untagged[6].picture)[20:28].astype(int) - green[0][20:28]).max() < 6
    for frame in (frames[1], frames[6]):
        assert np.abs(to_rgb(frame.picture).astype(int) - green[0]).max() < 6


@pytest.mark.parametrize("after", [97, 125])
def test_a_change_is_one_when_gone_on_with(tmp_path: Path, after: int) -> None:
    """Frame 125 is the first of the other size."""
    path = tmp_path / "a.ts"
    parts = [make(tmp_path / f"{n}.ts", Clip(125, size, rate=Fraction(25), time_base=Fraction(1, 25),
                                             pts=range(n * 125, n * 125 + 125)))
             for n, size in enumerate([(64, 48), (48, 64)])]
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    frames, _ = read(str(path))
    assert [number for number, frame in enumerate(frames) if frame.discontinuity] == [125]
    with open_source(str(path)) as source:
        position = frames[after].position
        assert position is not None
        source.resume_at(position, after, picture_checksum(frames[after]))
        rest = list(source)
    assert [frame.pts for frame in rest] == [frame.pts for frame in frames[after:]]
    assert [frame.discontinuity for frame in rest] == [frame.discontinuity for frame in frames[after:]]


# -- what it says of its colours --


@pytest.mark.parametrize(("size", "space"), [((1280, 534), 1), ((720, 576), 6), ((640, 720), 1), ((640, 480), 6)])
def test_untagged_colours_are_those_of_the_size(tmp_path: Path, size: tuple[int, int], space: int) -> None:
    with open_source(make(tmp_path / "a.mp4", Clip(1, size))) as source:
        assert (source.color.colorspace, source.color.tagged) == (space, False)
    with open_source(make(tmp_path / "b.mp4", Clip(1, size, color=(1, 1, 1, 1)))) as source:
        assert source.color == ColorTags(1, 1, 1)


# -- several pictures to choose from --


def test_of_several_video_streams_the_largest_is_taken(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.ts"), "w") as output:
        streams: list[Any] = [output.add_stream("libx264", rate=25) for _ in range(3)]
        for stream, size in zip(streams, ((32, 32), (96, 64), (64, 48)), strict=True):
            stream.width, stream.height = size
        for number in range(5):
            for stream in streams:
                picture = av.VideoFrame.from_ndarray(marked(number, (stream.width, stream.height)), "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(picture))
        for stream in streams:
            output.mux(stream.encode())
    frames, source = read(str(tmp_path / "a.ts"))
    assert (source.width, source.height) == (96, 64)
    assert [number_of(frame.image) for frame in frames] == list(range(5))


@pytest.fixture
def web_folder(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of ``tmp_path``, and the files that were fetched from it."""
    fetched: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            fetched.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", fetched
    server.shutdown()
    server.server_close()


def test_the_largest_variant_of_a_stream_is_taken(tmp_path: Path, web_folder: tuple[str, list[str]]) -> None:
    address, fetched = web_folder
    lines = ["#EXTM3U"]
    for name, size, bandwidth in (("small", (64, 48), 900), ("large", (128, 96), 400), ("rich", (128, 96), 500)):
        with av.open(str(tmp_path / f"{name}.m3u8"), "w", format="hls",
                     container_options={"hls_time": "1", "hls_playlist_type": "vod"}) as output:
            stream: Any = output.add_stream("libx264", rate=25, options={"g": "25"})
            stream.width, stream.height = size
            for number in range(75):
                picture = av.VideoFrame.from_ndarray(marked(number, size), "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(picture))
            output.mux(stream.encode())
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={bandwidth}000,RESOLUTION={size[0]}x{size[1]}", f"{name}.m3u8"]
    (tmp_path / "master.m3u8").write_text("\n".join(lines))
    with open_source(f"{address}/master.m3u8") as source:
        assert (source.width, source.height) == (128, 96)
        assert [number_of(frame.image) for frame in source] == list(range(75))
    assert "/rich2.ts" in fetched and "/small2.ts" not in fetched and "/large2.ts" not in fetched


# -- the command --


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_a_render_deinterlaces_as_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    path = make_interlaced(tmp_path / "a.mkv")
    result = here(capsys, "render", path, "-o", tmp_path / "b.mkv", "--deinterlace", mode, "--strength", "0", "-c:v",
                  "ffv1", "--chunk-frames", "8", *CHEAP)
    assert result.returncode == 0, result.stderr
    assert ("its pictures are made whole" in result.stderr) == (mode == "auto")
    done, expected = read(str(tmp_path / "b.mkv"))[0], read(path, deinterlace=mode)[0]
    assert [combing(frame.image) < 5 for frame in done] == [mode == "auto"] * 20
    assert max(np.abs(frame.image.astype(int) - other.image).max() for frame, other in zip(done, expected, strict=True)
               ) <= 3


def test_a_render_of_a_turned_video_is_upright_with_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide, tall = (128, 64), (64, 128)
    path = joined(tmp_path / "a.h264", (Clip(5, wide), [corner(wide)] * 5), (Clip(5, tall), [corner(tall)] * 5))
    result = here(capsys, "render", path, "-o", tmp_path / "b.mp4", "--strength", "0", *CHEAP)
    assert result.returncode == 0 and "changes its size or orientation" in result.stderr, result.stderr
    frames, source = read(str(tmp_path / "b.mp4"))
    assert (source.width, source.height, len(frames)) == (128, 64, 10)
    assert frames[7].image[:, :44].max() < 16 and frames[7].image[30:, 52:76].min() > 110
