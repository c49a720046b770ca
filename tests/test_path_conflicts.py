"""No command writes to a file that it reads, whatever names the file has."""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.clips import Clip, make
from support.commands import fails, here
from support.sink_outputs import names

from streamdream import cli, settings
from streamdream.automation.settings_track import FORMAT
from streamdream.cli import path_conflicts
from streamdream.cli.argument_parser import Parser
from streamdream.errors import UsageError
from streamdream.media.images import write_image
from streamdream.models import fetch

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SETTINGS = {item.name: item for group in settings.GROUPS for item in dataclasses.fields(group)}
NO_PATHS = {
    "names", "footage", "presets",
    "clips", "sheets",  # folders of benchmarks: sheets beside clips replace none
    "pixel_format", "encoder_options", "audio_codec", "audio_bit_rate", "map",
    "layers", "channel", "style_layers", "device", "codec", "encoder_preset", "shift", "crop", "capture_size", "host",
    "auth", "token", "hosts", "model", "name", "backend", "precision",
    "playlist",  # the check parses it
    "sizes", "encoder",  # of benchmarks
    "tabs", "banner", "metrics_host", "keep_folder", "shared_folder",  # folders of their own
    "suffix", "container", "exec", "workers", "seams", "cluster", "chunk_resources",
    "size", "memory", "trusted_proxies", "revoke", "root_path", "frame_ancestors",
}
"""Options that take any text and name no file."""


class Parsed(Exception):
    """Carries the parser of a command."""


def actions_of(command: str) -> list[argparse.Action]:
    """The options of a command, as it declares them."""
    def stop(parser: Parser, arguments: object) -> None:
        raise Parsed(parser)

    parser = Parser(command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse", stop)
        with pytest.raises(Parsed):
            cli.COMMANDS[command](parser, [])
    return [action for action in parser._actions if action.nargs != 0]


def is_read(destination: str) -> bool:
    kind = SETTINGS[destination].metadata["kind"] if destination in SETTINGS else ""
    return destination in path_conflicts.READ or kind in path_conflicts.FILE_KINDS


def pairs() -> Iterator[tuple[str, str, str]]:
    """(command, destination of what is read, destination of what is written)."""
    for command in cli.COMMANDS:
        found = [action.dest for action in actions_of(command)]
        for written in filter(path_conflicts.WRITTEN.__contains__, found):
            yield from ((command, read, written) for read in filter(is_read, found))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_that_takes_text_is_known_to_name_a_file_or_not(command: str) -> None:
    for action in actions_of(command):
        item = SETTINGS.get(action.dest)
        takes_text = item is None or (isinstance(item.default, str) and not item.metadata["choices"])
        if takes_text and action.type not in (int, float):
            known = is_read(action.dest) or action.dest in path_conflicts.WRITTEN or action.dest in NO_PATHS
            assert known, f"{command}: is {action.dest} a file? Then path_conflicts.py, or its kind, must say so"


def test_the_cases_of_path_conflicts_cover_every_command() -> None:
    assert {("render", "input", "output"), ("live", "source", "sink"), ("render", "preset", "record_settings"),
            ("image", "mask", "output"), ("atlas", "guide", "output"), ("bench", "clip", "output")} <= set(pairs())


def spellings(path: Path) -> Iterator[Path | str]:
    """Other names of one file."""
    yield path
    yield f"{path.parent}/../{path.parent.name}/./{path.name}"
    for make_link, name in ((os.link, "hard"), (os.symlink, "symbolic")):
        make_link(path, path.with_name(name + path.suffix))
        yield path.with_name(name + path.suffix)


@pytest.mark.parametrize(("command", "read_", "written"), [*pairs()])
def test_no_command_writes_to_what_it_reads(command: str, read_: str, written: str, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    """Of all options that read and all that write; each under four names of the same file."""
    own = tmp_path / "own.toml"  # a preset has to end so
    own.write_text("keep = 0.5\n")
    for output in spellings(own):
        texts, positional = {"output": "other.mp4", "input": "lavfi:testsrc=d=0.1", "name": "step"}, []
        texts |= {read_: str(own), written: str(output)}
        arguments = [command, "-y"]
        for action in actions_of(command):
            if action.dest in texts and not action.option_strings:
                positional.append(texts[action.dest])
            elif action.dest in texts:
                arguments += [action.option_strings[0], texts[action.dest]]
        fails(here(capsys, *arguments, *positional), 2, str(output), "give the output another name")
    assert own.read_text() == "keep = 0.5\n"
    assert names(tmp_path) == ["hard.toml", "own.toml", "symbolic.toml"]


def check(run: dict[str, str] | None = None, **found: object) -> None:
    path_conflicts.check(argparse.Namespace(**found), settings.resolve(run or {}, {}))


def test_a_sequence_is_all_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("g_001.jpg", "other.jpg", "g_7.jpg"):
        Path(name).write_bytes(b"x")
    os.link("other.jpg", "g_002.jpg")
    for guide in ("g_001.jpg", "other.jpg"):
        with pytest.raises(UsageError, match=rf"-o g_%03d.jpg would overwrite --guide {guide}"):
            check({"guide": guide}, output="g_%03d.jpg")
    check({"guide": "g_7.jpg"}, output="g_%03d.jpg")  # it would be g_007.jpg
    with pytest.raises(UsageError, match="is the input itself"):
        check(input="g_%03d.jpg", record_settings="g_002.jpg", settings_track="")
    with pytest.raises(UsageError, match="is the input itself"):
        check(source="show0.ts" if Path("show0.ts").write_bytes(b"x") else "", sink=["show.m3u8"])


def test_files_within_other_texts_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.mp4").write_bytes(b"x")
    Path("own.jsonl").write_text(json.dumps({"format": FORMAT, "set": {"style": "own.mp4"}}) + "\n")
    for source in (f"file://{tmp_path}/own.mp4", "lavfi:movie=own.mp4,scale=64:48", "lavfi:amovie=filename='own.mp4'"):
        with pytest.raises(UsageError, match="is the input itself"):
            check(source=source, sink=["window", "own.mp4"])
    with pytest.raises(UsageError, match=r"-o own\.mp4 would overwrite --playlist, guide own\.mp4"):
        check({"playlist": "mixed3@2; guide=own.mp4"}, output="own.mp4", settings_track="")
    with pytest.raises(UsageError, match=r"-o own\.mp4 would overwrite --settings-track, style own\.mp4"):
        check(output="own.mp4", settings_track="own.jsonl")
    check(source="lavfi:movie=sub/own.mp4", sink=["own.mp4", "null", "rtmp://host/own.mp4"])


@pytest.mark.parametrize(("first", "second"), [
    ("o.mp4", "o.mp4"), ("o.mp4", "./x/../o.mp4"), ("o.mp4", "O.MP4"), ("é.mp4", "e\u0301.mp4"),
    ("o_%d.png", "o_12.png"), ("o_%d.png", "o_%03d.png"), ("o.m3u8", "o3.ts"), ("link.mp4", "target.mp4"),
])
def test_two_outputs_are_two_files(first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.mp4").symlink_to("target.mp4")
    for pair in ((first, second), (second, first)):
        with pytest.raises(UsageError, match="are the same file"):
            check(sink=list(pair))
        with pytest.raises(UsageError, match="are the same file"):
            check(output=pair[0], record_settings=pair[1], settings_track="")
    check(sink=["a.mp4", "b.mp4", "a.mkv", "a_%d.png", "a_b.png", "window", "null"])


def test_what_no_file_can_replace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_image("photo.png", np.zeros((32, 32, 3), np.uint8))
    os.mkfifo("fifo.mp4")
    Path("folder.mp4").mkdir()
    for arguments in (["atlas", "photo.png", "-o", "-"], ["bench", "step", "-o", "-"],
                      ["render", "lavfi:testsrc=d=0.1", "-o", "o.mp4", "--record-settings", "-"]):
        fails(here(capsys, *arguments, "-y"), 2, "standard output; name a file")
    fails(here(capsys, "render", "lavfi:testsrc=d=0.1", "-o", "fifo.mp4", "-y"), 2, "is a pipe or a device")
    live = ["live", "--source", "lavfi:testsrc=d=0.1", "--sink", "null", "--seconds", "0.1"]
    fails(here(capsys, *live, "--record-settings", "fifo.mp4", "-y"), 2, "is a pipe or a device")
    fails(here(capsys, "render", "lavfi:testsrc=d=0.1", "-o", "o.mp4", "--record-settings", "folder.mp4", "-y"), 2,
          "is a folder")
    assert names(tmp_path) == ["fifo.mp4", "folder.mp4", "photo.png"] and Path("fifo.mp4").is_fifo()


def test_an_atlas_keeps_the_picture_that_it_is_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would remove all dreams of another picture from its folder, and this is one."""
    folder = tmp_path / "atlas"
    folder.mkdir()
    (folder / "atlas.json").write_text('{"key": "of another picture"}\n')
    own = folder / "003_mixed3.png"
    write_image(str(own), np.full((96, 96, 3), 90, np.uint8))
    fails(here(capsys, "atlas", own, "-o", folder, "-y", "--layers", "mixed0", "--steps", 1), 2, "is the input itself")
    assert own.exists()


def test_bench_overwrites_only_with_y(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("mine")
    fails(here(capsys, "bench", "step", "-o", kept), 2, "exists; -y overwrites it")
    assert kept.read_text() == "mine"


def test_weights_that_are_kept_are_not_taken_for_a_user_s_file(kept: Path, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    fetch.weights_dir().mkdir(parents=True)
    own = fetch.weights_dir() / "bvlc_googlenet.import.part"
    own.write_bytes(b"x")
    (tmp_path / "w.caffemodel").symlink_to(own)
    result = here(capsys, "fetch", "bvlc_googlenet", "--from", tmp_path / "w.caffemodel")
    assert result.returncode == 2 and "is already the stored file" in result.stderr
    assert own.read_bytes() == b"x"


def test_live_does_not_record_over_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Path(make(tmp_path / "own.mp4", Clip(10)))
    before = own.read_bytes()
    fails(here(capsys, "live", "--source", own, "--sink", "null", "--sink", own, "-y", "--seconds", 1), 2,
          "is the input itself")
    assert own.read_bytes() == before
