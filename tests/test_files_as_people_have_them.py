"""Each file of shared/inputs has a row in the matrix; and what is no single file: a stream in two sizes, a pipe."""
from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from support.commands import here
from support.inputs import INPUTS
from support.inputs.chart import SIZE
from support.inputs.holds import check
from support.inputs.rendered import Rendered
from support.inputs.row import CHEAP, WHOLE
from support.inputs.write import Video, write

SHARED = (
    "iphone-spatial.mov", "base.mp4", "camera.avi", "windows.wmv", "pcm.mov", "vorbis.webm", "hlg.mov", "joined.ts",
    "sixty.mp4", "dvd.mpg", "tape.dv", "turned.ts", "subtitled.mp4", "subtitled.mkv", "trimmed.mp4", "alpha.mov",
    "untagged.mp4", "wild.mkv", "timecode.mov", "photo_%03d.jpg", "cut-off.jpg", "moving.webp", "photo.heic",
    "heic-inside.jpg")
"""All of shared/inputs/make.sh but the HLS stream, which is below."""


def test_every_shared_input_is_rendered_in_every_run_of_the_tests() -> None:
    assert set(SHARED) <= {row.name for row in INPUTS.values() if row.core}


@pytest.fixture()
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a server of the files in a folder ``site``."""
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "site"))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_of_a_stream_in_two_sizes_the_larger_is_rendered(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["#EXTM3U"]
    for name, size, rate in (("small", (48, 32), 100_000), ("large", SIZE, 400_000)):
        write(tmp_path / f"site/{name}.m3u8", Video(size=size, options={"g": "6", "bf": "0"}), format="hls",
              hls_time="0.24", hls_playlist_type="vod", hls_segment_filename=str(tmp_path / f"site/{name}%d.ts"))
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={rate},RESOLUTION={size[0]}x{size[1]}", f"{name}.m3u8"]
    (tmp_path / "site/master.m3u8").write_text("\n".join(lines) + "\n")
    output = tmp_path / "output.mp4"
    said = here(capsys, "render", f"{address}/master.m3u8", "-o", output, "--strength", 0, *CHEAP)
    check(Rendered(tmp_path / "site/large.m3u8", output, said.returncode, said.stderr),
          {**WHOLE, "size": SIZE, "may_say": ("only pictures come from",)})


@pytest.mark.parametrize(("suffix", "video"), [("y4m", Video("wrapped_avframe")), ("nut", Video("ffv1")),
                                               ("ts", Video(rate=Fraction(25))), ("mkv", Video())])
def test_a_pipe_is_rendered_as_a_file_is(
    suffix: str, video: Video, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, pipe, output = tmp_path / f"source.{suffix}", tmp_path / "pipe", tmp_path / "output.mp4"
    write(source, video)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()), daemon=True)
    writer.start()
    said = here(capsys, "render", pipe, "-o", output, "--strength", 0, *CHEAP)
    writer.join(10)
    assert not writer.is_alive()
    check(Rendered(source, output, said.returncode, said.stderr), WHOLE)
