"""Files made to do harm, one of each kind that the fuzz harness found, or that reading the code did."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.clips import Clip, make
from support.commands import fails, here
from support.weight_files import field, floats, graph_constant

from streamdream import models
from streamdream.errors import ModelError
from streamdream.models import weights
from streamdream.models.weights.random import random_weights

FLAGS = ("--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--layers", "conv2d_2",
         "--warmup-steps", "0", "--json")
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("text", "words"), [
    ("steps = " + "[" * 9000, "nested too deeply"),
    ("steps = " + "{a=" * 9000, "nested too deeply"),
    ("a" + ".a" * 20_000 + " = 1", "too many parts"),
    ("# " + "x" * 70_000, "longer than 65536 bytes"),
    ("steps = " + "9" * 400, "too many digits"),
    ("steps = " + "9" * 5000, "limit"),
    ("steps = nan", "must be a whole number"),
    ("step_size = nan", "--step-size is nan"),
    ("layers = [[1]]", "is no text, number or switch"),
    ("layers = 1979-05-27", "is no text, number or switch"),
    ("steps = \udcff", "can't decode"),
])
def test_a_preset_that_no_one_writes_is_refused_in_one_line(capsys: Capture, tmp_path: Path, text: str, words: str
                                                            ) -> None:
    (tmp_path / "a.toml").write_bytes(text.encode(errors="surrogateescape"))
    result = here(capsys, "image", "a.png", "-o", "b.png", "--preset", tmp_path / "a.toml", "--print-config")
    fails(result, 2, words)


def test_a_number_of_hundreds_of_digits_is_refused_as_a_flag(capsys: Capture) -> None:
    fails(here(capsys, "image", "a.png", "-o", "b.png", "--steps", "9" * 400), 2, "too many digits")


@pytest.mark.parametrize(("line", "words"), [
    ('guide = "lavfi:color,metadata=print:file={}"', "a preset names files only"),
    ('guide = "http://127.0.0.1:1/{}"', "a preset names files only"),
    ('encoder_options = "x264-params=pass=1:stats={}"', "may read or write files"),
    ('encoder_options = "x265-params=csv=a"', "may read or write files"),
])
def test_a_preset_writes_no_files_and_asks_no_servers(capsys: Capture, tmp_path: Path, line: str, words: str) -> None:
    """Filter graphs and encoders can write any file of the user's."""
    clip, preset, written = make(tmp_path / "a.mkv", Clip(2)), tmp_path / "a.toml", tmp_path / "written"
    preset.write_text(line.format(written) + "\n")
    fails(here(capsys, "render", clip, "-o", tmp_path / "b.mkv", "--preset", preset, *FLAGS), 2, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "a.toml"]


@pytest.mark.parametrize("options", ["tune=grain,bf=2", "profile=high,x264-params=keyint=30:ref=4"])
def test_a_preset_may_hold_other_options_of_the_encoder(capsys: Capture, tmp_path: Path, options: str) -> None:
    (tmp_path / "a.toml").write_text(f'encoder_options = "{options}"\n')
    result = here(capsys, "render", "a", "-o", "b.mkv", "--preset", tmp_path / "a.toml", "--print-config")
    assert options in result.stdout, result.stderr


def test_a_recipe_writes_no_files(capsys: Capture, tmp_path: Path) -> None:
    recipe = '# streamdream recipe\nencoder_options = "x264-params=pass=1:stats=a"\n'
    clip = make(tmp_path / "a.mkv", Clip(2, metadata={"GROUPING": recipe}))
    fails(here(capsys, "render", clip, "-o", tmp_path / "b.mkv", "--preset", clip, *FLAGS), 2, "read or write files")


def test_a_name_with_the_markup_of_the_bar_is_shown_as_it_is() -> None:
    from io import StringIO

    from streamdream.cli.progress import _make_bar

    bar = _make_bar("frames")
    bar.console.file = StringIO()
    bar.add_task("a[/b] [red]c.mp4", total=3, speed="", left="")
    bar.console.print(bar.get_renderable())
    assert "a[/b] [red]c.mp4" in bar.console.file.getvalue()


@pytest.mark.parametrize("line", [
    "[" * 100_000, '{"a":' * 100_000, '{"seconds": NaN}', '{"seconds": 1e999}', '{"seconds": %s}' % ("9" * 400),
    '{"seconds": %s}' % ("9" * 5000), '{"seconds": 1, "frozen": "no"}', '{"seconds": 1, "set": [[]]}',
    '{"seconds": 1, "set": 5}', "5", "[]", "null", '{"seconds": {}}',
])
def test_a_settings_track_that_no_one_writes_is_refused_in_one_line(capsys: Capture, tmp_path: Path, line: str) -> None:
    clip, track = make(tmp_path / "a.mkv", Clip(2)), tmp_path / "a.jsonl"
    track.write_text(json.dumps({"format": "streamdream settings 1", "set": {}}) + "\n" + line)
    result = here(capsys, "render", clip, "-o", tmp_path / "b.mkv", "--settings-track", track, *FLAGS)
    fails(result, 2, "line 2: it is not as --record-settings writes it")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.mkv"]


def test_a_settings_track_of_hundreds_of_megabytes_is_not_read(capsys: Capture, tmp_path: Path) -> None:
    clip, track = make(tmp_path / "a.mkv", Clip(2)), tmp_path / "a.jsonl"
    with track.open("wb") as file:
        file.truncate(500 << 20)
    fails(here(capsys, "render", clip, "-o", tmp_path / "b.mkv", "--settings-track", track, *FLAGS), 2, "longer than")


def test_what_a_file_says_of_itself_cannot_steer_the_terminal(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('"\\u001b[2J\\u009b31m\\u202e%s" = 1' % ("x" * 50_000))
    result = here(capsys, "image", "a.png", "-o", "b.png", "--preset", tmp_path / "a.toml", "--print-config")
    fails(result, 2, "unknown key in preset")
    assert result.stderr.strip().isprintable()
    assert len(result.stderr) < 2100


def huge_gif(path: Path) -> None:
    from PIL import Image

    Image.new("P", (64, 48)).save(path)
    data = bytearray(path.read_bytes())
    data[6:10] = (16_000).to_bytes(2, "little") * 2
    path.write_bytes(data)


def test_a_small_file_of_huge_pictures_is_refused_before_they_are_decoded(capsys: Capture, tmp_path: Path) -> None:
    huge_gif(tmp_path / "a.gif")
    result = here(capsys, "render", tmp_path / "a.gif", "-o", tmp_path / "b.mkv", *FLAGS)
    fails(result, 1, "claims pictures of 16000x16000")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_an_atlas_without_a_dream_leaves_no_folder(capsys: Capture, lion: Any, tmp_path: Path) -> None:
    from streamdream.media.images import write_image

    write_image(str(tmp_path / "a.png"), lion)
    result = here(capsys, "atlas", tmp_path / "a.png", "-o", tmp_path / "b.png", "--field-height", "16", "--layers",
                  "mixed5", "--backend", "eager")
    fails(result, 2, "too small")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def refuses(path: Path, model: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        weights.load(path, models.get(model))
    assert "\n" not in str(caught.value)


def test_a_name_in_a_graph_need_not_be_text(tmp_path: Path) -> None:
    (tmp_path / "a.pb").write_bytes(graph_constant("a", torch.ones(3)).replace(b"\x01a", b"\x01\xff", 1))
    refuses(tmp_path / "a.pb", "inception5h", "does not hold inception5h")


def repeated(shape: list[int]) -> bytes:
    """A constant of one number, which stands for all of that shape."""
    value = field(1, 1) + field(2, b"".join(field(2, field(1, size % (1 << 64))) for size in shape))
    value += field(5, floats(torch.ones(1)))
    return field(1, field(1, "a") + field(2, "Const") + field(5, field(1, "value") + field(2, field(8, value))))


@pytest.mark.parametrize("graph", [repeated([1 << 25]) * 100, repeated([1 << 40]), repeated([-1]), repeated([1] * 70),
                                   repeated([1 << 62] * 20_000), repeated([0, 1 << 62])])
def test_a_graph_cannot_stand_for_more_than_any_network_has(tmp_path: Path, graph: bytes) -> None:
    (tmp_path / "a.pb").write_bytes(graph)
    refuses(tmp_path / "a.pb", "inception5h", "is damaged")


def test_a_caffemodel_of_many_dimensions_is_refused(tmp_path: Path) -> None:
    blob = field(7, field(1, b"\x01" * 70)) + field(5, floats(torch.ones(1)))
    (tmp_path / "a.caffemodel").write_bytes(field(100, field(1, "a") + field(7, blob)))
    refuses(tmp_path / "a.caffemodel", "bvlc_googlenet", "a shape that no tensor has")


def one_number(folder: Path) -> None:
    torch.save({"a": torch.ones(1).expand(1 << 40)}, folder / "a.pth")


def sparse(folder: Path) -> None:
    tensor = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (1 << 40,), check_invariants=False)
    torch.save({"a": tensor}, folder / "a.pth")


@pytest.mark.parametrize("write", [one_number, sparse])
def test_a_tensor_larger_than_what_is_stored_of_it_is_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    refuses(tmp_path / "a.pth", "torchvision_googlenet", "is damaged")


def test_an_hdf5_file_cannot_claim_gigabytes_or_take_them_from_elsewhere(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("conv2d/kernel:0", (1 << 20, 1 << 20), np.float32, chunks=(16, 16))
    refuses(tmp_path / "huge.h5", "keras_inception_v3", "larger than 1024 MB")
    (tmp_path / "secret").write_bytes(bytes(400))
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file.create_dataset("conv2d/kernel:0", (10, 10), np.float32, external=[(str(tmp_path / "secret"), 0, 400)])
    refuses(tmp_path / "elsewhere.h5", "keras_inception_v3", "lies in another file")
    with h5py.File(tmp_path / "nothing.h5", "w") as file:
        file.create_dataset("conv2d/kernel:0", data=h5py.Empty(np.float32))
    refuses(tmp_path / "nothing.h5", "keras_inception_v3", "is damaged or truncated")


def test_a_kind_of_number_that_pytorch_lacks_is_refused(tmp_path: Path) -> None:
    stored = {key: tensor for key, tensor in random_weights(models.get("bvlc_googlenet").nodes()).items()
              if key.startswith("conv1")}
    from safetensors.torch import save_file

    save_file({key.replace("/", "_"): tensor for key, tensor in stored.items()}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes().replace(b'"F32"', b'"X32"')
    (tmp_path / "a.safetensors").write_bytes(data)
    refuses(tmp_path / "a.safetensors", "bvlc_googlenet", "is damaged")
