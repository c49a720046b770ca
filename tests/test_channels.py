"""The channel atlas: what the package holds, how sheets are made, and the command."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import ENVIRONMENT, fails, here

from streamdream import models
from streamdream.dream import channel_atlas
from streamdream.dream.channel_atlas import ChannelDreamer, join_cells, make_sheet
from streamdream.media.images import read_image
from streamdream.models import channel_sheets

MODEL, LAYER = "inception_v3", "conv2d_1"
"""A layer of 32 channels whose sheet is not in the package."""
MAX_BYTES, MIN_NAMES = 6 * 1024 * 1024, 200
Capture = pytest.CaptureFixture[str]


@pytest.fixture()
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_atlas, "STEPS", (1, 2))


@pytest.fixture()
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    return tmp_path / "channels" / MODEL


def test_the_package_has_a_sheet_for_every_block_with_a_cell_for_every_channel() -> None:
    blocks = models.get(MODEL).blocks()
    sheets = [channel_sheets.sheet(MODEL, tap) for tap in blocks]
    for tap, sheet in zip(blocks, sheets, strict=True):
        assert sheet is not None and channel_sheets.SHIPPED in sheet.path.parents
        picture = read_image(str(sheet.path))
        rows = -(-sheet.count // sheet.columns)
        assert sheet.count == models.get(MODEL).taps()[tap].channels
        assert picture.shape == (rows * sheet.cell, sheet.columns * sheet.cell, 3)
        empty = sum(picture[top:top + sheet.cell, left:left + sheet.cell].std() < 5
                    for left, top in map(sheet.position, range(sheet.count)))
        assert empty <= 0.03 * sheet.count, tap
    assert sum(sheet.path.stat().st_size for sheet in sheets if sheet) <= MAX_BYTES


def test_names_are_of_real_channels_in_all_blocks_and_few_plain_words() -> None:
    names, taps = channel_sheets.names(MODEL), models.get(MODEL).taps()
    assert len(names) >= MIN_NAMES and {tap for tap, _ in names} == set(models.get(MODEL).blocks())
    for (tap, channel), words in names.items():
        assert 0 <= channel < taps[tap].channels
        assert words == words.lower() and 1 <= len(words.split()) <= 3, words


@pytest.mark.parametrize(("text", "name"), [("rose", "roses"), ("Feather", "feathers"), ("leaves", "palm leaves"),
                                            ("leaf", "palm leaves"), ("weaves basket", "basket weave")])
def test_a_search_finds_plurals_in_any_order_and_needs_every_word(text: str, name: str) -> None:
    found = channel_sheets.search(MODEL, text)
    assert name in {words for _, _, words in found}
    assert all(channel_sheets.names(MODEL)[tap, channel] == words for tap, channel, words in found)
    assert channel_sheets.search(MODEL, f"{text} unheard-of") == []
    assert channel_sheets.search("bvlc_googlenet", text) == []
    assert "rosettes" not in {words for _, _, words in channel_sheets.search(MODEL, "rose")}


def test_the_lists_of_a_page_load_no_torch() -> None:
    program = (f"import sys; from streamdream.models import channel_sheets as c; c.sheet('{MODEL}', 'mixed5'); "
               f"assert c.search('{MODEL}', 'roses'); assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", program], check=True, env=ENVIRONMENT)


def test_the_picture_of_a_channel_excites_that_channel_most() -> None:
    dreamer, network = ChannelDreamer(models.get(MODEL), "conv2d_3", "cpu", "fp32"), models.get(MODEL)
    channels = [2, 9, 17, 30]
    cells = dreamer.dream(channels)
    pictures = torch.from_numpy(cells).permute(0, 3, 1, 2).float() / 127.5 - 1
    from streamdream.models.network import Network

    features = Network(network.nodes(), network.load_weights(), ["conv2d_3"], torch.device("cpu"),
                       torch.float32)(pictures)["conv2d_3"].mean((2, 3))[:, channels]
    assert features.argmax(0).tolist() == [0, 1, 2, 3]


def test_an_interrupted_sheet_leaves_no_half_one_and_goes_on_to_the_same_picture(tmp_path: Path,
                                                                                          few_steps: None) -> None:
    class Interrupted(Exception):
        pass

    steps = 0

    def stop() -> None:
        nonlocal steps
        steps += 1
        if steps == 5:  # of the second part
            raise Interrupted

    model, path = models.get(MODEL), tmp_path / "new" / "sheet.webp"
    with pytest.raises(Interrupted):
        make_sheet(ChannelDreamer(model, LAYER, "cpu", "fp32", stop), path)
    assert not path.exists()
    make_sheet(ChannelDreamer(model, LAYER, "cpu", "fp32", stop), path)
    resumed = steps - 5
    assert [found.name for found in path.parent.iterdir()] == ["sheet.webp"]
    make_sheet(ChannelDreamer(model, LAYER, "cpu", "fp32", stop), tmp_path / "other.webp")
    assert (tmp_path / "other.webp").read_bytes() == path.read_bytes()
    assert steps - 5 - resumed > resumed  # it had less to do


def test_cells_are_joined_in_rows() -> None:
    cells = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    assert join_cells(cells, 2)[..., 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 128, 128], [2, 2, 128, 128]]


def test_a_layer_with_no_sheet_gets_one_which_is_kept(cache: Path, tmp_path: Path, capsys: Capture, few_steps: None
                                                        ) -> None:
    first = here(capsys, "channels", LAYER, "-o", tmp_path / "sheet.png", STREAMDREAM_CACHE=str(tmp_path))
    assert first.returncode == 0 and f"{MODEL} {LAYER}" in first.stderr, first.stderr
    assert [path.name for path in cache.iterdir()] == [f"{LAYER}.webp"]
    assert read_image(str(tmp_path / "sheet.png")).shape[1] > 24 * 96
    made = (cache / f"{LAYER}.webp").stat().st_mtime_ns
    again = here(capsys, "channels", LAYER, "--json", STREAMDREAM_CACHE=str(tmp_path))
    answer = json.loads(again.stdout)
    assert answer["channels"] == 32 and Path(answer["sheet"]) == cache / f"{LAYER}.webp" and not again.stderr
    assert (cache / f"{LAYER}.webp").stat().st_mtime_ns == made


def test_words_find_channels_and_a_picture_shows_them(tmp_path: Path, capsys: Capture) -> None:
    found = here(capsys, "channels", "roses", "-o", tmp_path / "roses.png")
    assert "mixed5[33]  roses" in found.stdout.splitlines()
    assert read_image(str(tmp_path / "roses.png")).shape[0] > 96
    answer = json.loads(here(capsys, "channels", "mixed4", "rose", "--json").stdout)
    assert {row["layer"] for row in answer["channels"]} == {"mixed4"}
    fails(here(capsys, "channels", "roses", "-o", tmp_path / "roses.png"), 2, "-y overwrites it")


def test_without_a_word_it_lists_layers_and_names(capsys: Capture) -> None:
    answer = json.loads(here(capsys, "channels", "--json").stdout)
    assert [row["layer"] for row in answer["layers"]] == models.get(MODEL).blocks()
    assert {row["sheet"] for row in answer["layers"]} == {"yes"} and "roses" in answer["names"]
    assert "not made yet" in here(capsys, "channels", "--model", "bvlc_googlenet").stdout


@pytest.mark.parametrize(("arguments", "hint"), [
    (["rosse"], ", roses, "), (["mixd5"], "did you mean mixed5"),
    (["mixed5", "xyzzy"], "unknown name 'xyzzy'"), (["-o", "sheet.png"], "the layer is missing: mixed0"),
    (["roses", "--model", "bvlc_googlenet"], "have no names; its layers: inception_3a/output"),
    (["all", "-o", "sheet.png"], "takes no words"),
])
def test_a_wrong_name_is_one_line_with_the_legal_ones(arguments: list[str], hint: str, capsys: Capture,
                                                      cache: Path) -> None:
    fails(here(capsys, "channels", *arguments, STREAMDREAM_CACHE=str(cache)), 2, hint)


def test_without_weights_it_says_how_to_get_them(capsys: Capture, cache: Path) -> None:
    fails(here(capsys, "channels", "inception_3a/output", "--model", "bvlc_googlenet", STREAMDREAM_CACHE=str(cache)), 1,
          "streamdream fetch bvlc_googlenet")
