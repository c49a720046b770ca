from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from streamdream import models, settings, settings_fields, settings_parsing
from streamdream.ascent import objectives
from streamdream.errors import SettingsError, UnknownName
from streamdream.settings import GROUPS, DreamSettings, StreamSettings, resolve


def test_flag_beats_environment_beats_preset_beats_default(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("keep = 0.5\nsteps = 7\njitter = 3\n")
    dream = resolve({"keep": "0.7"}, {"STREAMDREAM_KEEP": "0.6", "STREAMDREAM_STEPS": "9"}, str(preset)).dream
    assert (dream.keep, dream.steps, dream.jitter) == (0.7, 9, 3)
    assert dream.octaves == DreamSettings().octaves


@pytest.mark.parametrize("name", settings.preset_names())
def test_every_shipped_preset_loads_and_says_what_it_is(name: str) -> None:
    run = resolve({}, {}, name)
    objectives.from_settings(run.dream, models.get(run.stream.model))  # its layers are there
    assert settings.about_preset(name)


def test_printed_config_reads_back_the_same(tmp_path: Path) -> None:
    before = resolve({"keep": "0.5", "start": "1:02.5", "layers": "mixed3:1,mixed5:0.5"}, {})
    file = tmp_path / "saved.toml"
    file.write_text(settings.to_toml(vars(before).values()))
    assert resolve({}, {}, str(file)) == before


@pytest.mark.parametrize(("name", "text", "message"), [
    ("octaves", "0", "--octaves is 0, but must be 1..12"),
    ("octaves", "13", "--octaves is 13, but must be 1..12"),
    ("octaves", "two", "--octaves is 'two', but must be a whole number"),
    ("steps", "1.5", "--steps is '1.5', but must be a whole number"),
    ("keep", "nan", "--keep is nan, but must be 0..0.999"),
    ("start", "1:2:3:4", "-ss is '1:2:3:4', but must be a time"),
    ("start", "-1", "-ss is '-1', but must be a time"),
    ("memory", "much", "--memory is 'much', but must be auto, or 64M or more, as 500M, 2G or 1.5GiB"),
    ("memory", "-1G", "--memory is '-1G', but must be auto, or 64M or more"),
    ("memory", "0", "--memory is '0', but must be auto, or 64M or more"),
    ("memory", "2 G", "--memory is '2 G', but must be auto, or 64M or more"),
    ("memory", "٣G", "--memory is '٣G', but must be auto, or 64M or more"),
])
def test_what_is_not_legal_names_flag_value_and_range(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match="^" + message.replace(".", r"\.")):
        resolve({name: text}, {})


@pytest.mark.parametrize(("text", "size"), [
    ("auto", 0), ("Auto", 0), ("67108864", 2**26), ("64M", 2**26), ("64m", 2**26), ("500MB", 500 * 10**6),
    ("2G", 2**31), ("1.5GiB", 3 * 2**29), ("1T", 2**40)])
def test_memory_is_a_size_as_others_write_it(text: str, size: int) -> None:
    stream = resolve({"memory": text}, {}).stream
    assert stream.memory == text and settings_parsing.parse_memory(stream.memory) == size


def test_memory_that_is_no_size_makes_no_settings() -> None:
    with pytest.raises(SettingsError, match="--memory is 'much'"):
        StreamSettings(memory="much")


@pytest.mark.parametrize(("name", "text", "close"), [
    ("flow", "diss", "dis"), ("trust", "photometrics", "photometric"), ("model", "inception_v4", "inception_v3"),
    ("backend", "eagre", "eager"), ("precision", "fp31", "fp32"),
])
def test_an_unknown_choice_shows_the_close_ones(name: str, text: str, close: str) -> None:
    with pytest.raises(UnknownName, match=f"did you mean {close}"):
        resolve({name: text}, {})


def test_preset_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown preset 'google2015'; did you mean google-2015"):
        resolve({}, {}, "google2015")
    (tmp_path / "a.toml").write_text("kep = 1\n")
    with pytest.raises(UnknownName, match="did you mean keep"):
        resolve({}, {}, str(tmp_path / "a.toml"))
    (tmp_path / "b.toml").write_text("keep = [[[\n")
    with pytest.raises(SettingsError, match="preset"):
        resolve({}, {}, str(tmp_path / "b.toml"))
    with pytest.raises(SettingsError, match="no such file"):
        resolve({}, {}, str(tmp_path / "c.toml"))


def test_no_option_is_declared_twice() -> None:
    names = [item.name for group in GROUPS for item in dataclasses.fields(group)]
    flags = [settings_fields.flag(item) for group in GROUPS for item in dataclasses.fields(group)]
    assert len(set(names)) == len(names)
    assert len(set(flags)) == len(flags)
    assert all(item.metadata["help"] for group in GROUPS for item in dataclasses.fields(group))


def test_settings_that_exist_are_legal() -> None:
    with pytest.raises(SettingsError):
        DreamSettings(keep=1.5)
    with pytest.raises(UnknownName):
        StreamSettings(model="nothing like it")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), ("0", 0)])
def test_times_are_parsed_as_seconds_or_clock_times(text: str, seconds: float) -> None:
    assert math.isclose(settings_parsing.parse_seconds(text), seconds)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("0", False), ("off", False)])
def test_switches_take_yes_and_no(text: str, value: bool, tmp_path: Path) -> None:
    assert resolve({"original_colors": text}, {}).dream.original_colors is value
    (tmp_path / "a.toml").write_text(f"original_colors = {str(value).lower()}\n")
    assert resolve({}, {}, str(tmp_path / "a.toml")).dream.original_colors is value
    with pytest.raises(SettingsError, match="--original-colors is 'perhaps', but must be true or false"):
        resolve({"original_colors": "perhaps"}, {})


def test_paths_survive_a_preset_file(tmp_path: Path) -> None:
    odd = DreamSettings(guide='C:\\a "b"\n.png', original_colors=True)
    (tmp_path / "a.toml").write_text(settings.to_toml((odd,)), encoding="utf-8")
    assert resolve({}, {}, str(tmp_path / "a.toml")).dream == odd
