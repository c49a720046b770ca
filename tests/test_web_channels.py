"""Routes of the looks and of the picker of channels; limits of a text of layers; sheets that are made."""
from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamdream_web.core import limits
from streamdream_web.jobs.sheet_maker import SheetMaker
from streamdream_web.pages import channels, looks, settings_panel
from support.channel_pictures import MODEL, write_sheets
from support.waiting import until
from support.web_client import Client, Running, ask, running

from streamdream import settings
from streamdream.dream import channel_atlas
from streamdream.models import channel_sheets
from streamdream.settings import StreamSettings
from streamdream.settings_parsing import parse_layers

LOOK = str(settings.read_preset(looks.look_names()[0])["layers"])


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = write_sheets(tmp_path_factory.mktemp("channels"))
        patch.setattr(channel_sheets, "SHIPPED", folder)
        channel_sheets.names.cache_clear()
        yield folder
    channel_sheets.names.cache_clear()


@pytest.fixture(scope="module")
def web(sheets: Path) -> Iterator[Running]:
    with running() as server:
        yield server


def get(web: Running, path: str) -> Any:
    status, _, body = ask(web, path)
    assert status == 200
    return json.loads(body)


def test_blocks_come_with_their_sheets_and_names(web: Running, sheets: Path) -> None:
    facts = get(web, f"/channels/{MODEL}")
    assert facts["status"] == "" and not facts["pending"]
    assert [block["name"] for block in facts["blocks"]] == [f"mixed{number}" for number in range(6)]
    last = facts["blocks"][-1]
    assert last["names"]["33"] == "feathers" and last["channels"] == 768 and last["columns"] == channel_sheets.COLUMNS
    status, headers, body = ask(web, f"/{last['sheet']}")
    assert status == 200 and headers["Content-Type"] == "image/webp" and "max-age" in headers["Cache-Control"]
    assert body == (sheets / MODEL / "mixed5.webp").read_bytes()
    assert ask(web, f"/{last['sheet']}", If_None_Match=headers["ETag"])[0] in (200, 304)


def test_search_finds_channels_over_all_blocks(web: Running) -> None:
    assert get(web, f"/channels/{MODEL}/search?q=feathers") == [["mixed4", 7], ["mixed5", 33]]
    assert get(web, f"/channels/{MODEL}/search?q=feather+white") == [["mixed4", 7]]
    assert get(web, f"/channels/{MODEL}/search?q=bagpipe") == get(web, f"/channels/{MODEL}/search?q=") == []


@pytest.mark.parametrize("path", [
    "/channels/nonsense", "/channels/nonsense/0", "/channels/inception_v3/9999", "/channels/inception_v3/mixed5.webp",
    "/channels/..%2f..%2fetc%2fpasswd", "/channels/inception_v3/..%2f..%2fnames.toml", "/looks/..%2fsheet",
    "/looks/look-lace.webp", "/channels/inception_v3/search/x"])
def test_names_that_are_no_network_or_number_are_not_found(web: Running, path: str) -> None:
    assert ask(web, path)[0] == 404


def test_pictures_of_looks_are_one_file(web: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number, name in enumerate(looks.look_names()[:7]):
        picture = np.full((looks.HEIGHT, looks.WIDTH, 3), 30 * number, np.uint8)
        looks.cv2().imwrite(str(tmp_path / f"{name}.webp"), picture)
    monkeypatch.setattr(looks, "PICTURES", tmp_path)
    for cached in (looks.sheet, looks.version, looks._layout):
        cached.cache_clear()
    status, headers, body = ask(web, "/looks/sheet?1")
    whole = looks.cv2().imdecode(np.frombuffer(body, np.uint8), 1)
    assert status == 200 and "immutable" in headers["Cache-Control"]
    assert whole.shape == (2 * looks.HEIGHT, looks.COLUMNS * looks.WIDTH, 3)
    assert abs(int(whole[-60, 60].mean()) - 180) < 4  # the seventh begins the second row
    assert "100%" in looks.picture(looks.look_names()[6]) and not looks.picture("look-that-is-not-there")
    for cached in (looks.sheet, looks.version, looks._layout):
        cached.cache_clear()


def mixed(web: Running, **query: Any) -> dict[str, str]:
    from urllib.parse import urlencode

    values = {"model": MODEL, "layers": "mixed0", "other": LOOK, "mode": "mix", "amount": 0.5, **query}
    answer: dict[str, str] = get(web, "/looks/mix?" + urlencode(values))
    return answer


def test_looks_are_mixed_and_subtracted(web: Running) -> None:
    own = {part.name for part in parse_layers(LOOK)} - {"conv2d_1"}
    for mode, sign in (("mix", 1), ("subtract", -1)):
        parts = parse_layers(mixed(web, mode=mode, layers="conv2d_1")["layers"])
        signs = {part.name: np.sign(part.weight) for part in parts}
        assert signs["conv2d_1"] == 1 and all(signs[name] == sign for name in own)
    little, much = (parse_layers(mixed(web, layers="conv2d_1", amount=amount)["layers"]) for amount in (0.1, 0.9))

    plain = [next(part.weight for part in parts if part.name == "conv2d_1") / sum(abs(part.weight) for part in parts)
             for parts in (little, much)]
    assert plain[0] > plain[1]


@pytest.mark.parametrize("query", [
    {"other": "still"}, {"other": ""}, {"other": "mixed0," * 400 + "mixed0"},
    {"mode": "divide"}, {"amount": "much"}, {"amount": "nan"}, {"amount": 2},
    {"layers": "nonsense"}, {"layers": "mixed0[256]"}, {"layers": ""}, {"model": "nonsense"},
    {"layers": "mixed0," * 400 + "mixed0"}])
def test_a_mix_that_cannot_be_is_one_line(web: Running, query: dict[str, Any]) -> None:
    answer = mixed(web, **query)
    assert answer.keys() == {"problem"} and answer["problem"] and "\n" not in answer["problem"]


def test_live_takes_channels_and_no_more_than_fit(web: Running) -> None:
    many = ",".join(f"mixed5[{number}]:1" for number in range(limits.MAX_LAYER_PARTS + 1))
    with Client(web) as client:
        client.welcome()
        client.say(type="settings", values={"layers": "mixed5[33,220,7,8,9,10,11]:1,mixed5[12]:-0.5"})
        assert client.word("settings")["values"]["layers"].startswith("mixed5[33,220")
        taps = [f"conv2d_{number}" for number in range(1, limits.MAX_LAYERS + 2)]
        for layers, problem in ((many, "parts"), (",".join(taps), "at most"), ("mixed5[768]", "0..767"),
                                ("mixed5[" + "1," * 500 + "1]", "characters")):
            client.say(type="settings", values={"layers": layers})
            refused = client.word("refused")
            assert problem in refused["message"] and refused["values"]["layers"].startswith("mixed5[33,220")


def test_a_look_with_a_play_list_drifts_until_other_layers_are_chosen(
        web: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'about = "drifts"\nlayers = "conv2d_1"\nplaylist = "conv2d_2@0.2; conv2d_3@0.2"\nfade = 0.1\n'
    (tmp_path / "look-drift.toml").write_text(text, encoding="utf-8")
    (tmp_path / "look-wrong.toml").write_text(text.replace("conv2d_3", "mixed9"), encoding="utf-8")
    monkeypatch.setattr(settings, "PRESETS", tmp_path)
    monkeypatch.setattr(looks, "_found", {})
    assert [look["name"] for look in looks.looks(web.app_state)] == ["look-drift"]  # the other is for another network
    image = np.full((48, 64, 3), 90, np.uint8)
    with Client(web) as client:
        client.welcome()
        session = web.waiting_room.sessions[client.token]

        def layers_are(wanted: str) -> bool:
            client.dream(image)
            return bool(session.controls.current().layers == wanted)

        client.say(type="settings", values={"layers": "conv2d_1", "look": "look-drift"})
        for wanted in ("conv2d_2", "conv2d_3", "conv2d_2"):
            until(partial(layers_are, wanted))
        client.say(type="settings", values={"strength": 1.5})
        until(lambda: layers_are("conv2d_3") and session.controls.current().strength == 1.5)
        client.say(type="settings", values={"layers": "conv2d_4"})
        until(lambda: layers_are("conv2d_4"))
        now = time.monotonic()
        until(lambda: not layers_are("conv2d_4") or time.monotonic() > now + 0.6)
        assert layers_are("conv2d_4")
        for look in ("look-wrong", str(tmp_path / "look-drift.toml")):
            client.say(type="settings", values={"look": look})
            assert "mixed9" in client.word("refused")["message"] if look == "look-wrong" else client.word("settings")
        assert layers_are("conv2d_4")


def test_layers_of_the_gallery_are_those_of_a_text() -> None:
    assert settings_panel.named("mixed5[33,220]:1,mixed3:0.5") == ["mixed5", "mixed3"]
    assert settings_panel.named("mixed5[") == []


def test_missing_sheets_are_made_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(channel_sheets, "SHIPPED", write_sheets(tmp_path / "channels", missing="mixed1"))
    began, done = threading.Event(), threading.Event()

    def make_sheet(dreamer: Any, path: Path, on_cells: Any) -> None:
        began.set()
        on_cells(100)
        assert done.wait(20)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"whole")

    monkeypatch.setattr(channel_atlas, "ChannelDreamer", lambda *arguments: arguments[1])
    monkeypatch.setattr(channel_atlas, "make_sheet", make_sheet)
    maker = SheetMaker(StreamSettings(), nullcontext, lambda: False)
    with closing(maker):
        before = maker.count(MODEL)
        assert maker.pending(MODEL) and before[1] - before[0] == 288
        maker.request(MODEL)
        assert began.wait(20) and maker.count(MODEL)[0] == before[0] + 100
        done.set()
        until(lambda: not maker.pending(MODEL))
        assert maker.count(MODEL)[0] == before[1]


def test_sheets_that_cannot_be_made_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(channel_sheets, "SHIPPED", write_sheets(tmp_path / "channels", missing="mixed1"))

    def fail(*arguments: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(channel_atlas, "ChannelDreamer", fail)
    maker = SheetMaker(StreamSettings(), nullcontext, lambda: False)
    maker.request(MODEL)
    until(lambda: MODEL in maker.problem)
    assert not maker.pending(MODEL) and "log" in maker.problem[MODEL]
    maker.close()


def test_sheets_of_a_network_without_weights_are_not_made(web: Running) -> None:
    assert "streamdream fetch bvlc_googlenet" in channels.describe(web.jobs_service, "bvlc_googlenet")["status"]
