"""Every option, once: the fields of three frozen dataclasses. Flags, presets, docs and sliders are made from them.

``DreamSettings`` may change while a run goes on, ``StreamSettings`` are fixed for a run, ``RenderSettings`` concern the
output file only. A value comes from, in order: the flag, the environment (``STREAMDREAM_KEEP=0.9``), the preset, the
default here.
"""
from __future__ import annotations

import dataclasses
import importlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from streamdream.errors import SettingsError, UnknownName

PRESETS = Path(__file__).with_name("presets")
TapWeights = tuple[tuple[str, float], ...]
"""(tap, weight), ...: what ``--layers`` names."""
ENVIRONMENT_PREFIX = "STREAMDREAM_"
SMALLEST_MEMORY = "64M"
"""Less does not hold one step."""


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None, unit: str = "",
           choices: str = "", flag: str = "", kind: str = "") -> Any:
    """A dataclass field with its metadata.

    ``choices`` names the registry of legal values as ``module:NAME`` (a dict), looked up only when it is needed;
    ``flag`` overrides ``--field-name``; ``kind="time"`` accepts ``90``, ``1:30`` and ``0:01:30.5``, ``kind="memory"``
    what ``parse_memory`` does, ``kind="picture"`` is the path of one, ``kind="file"`` of any other file that is read.
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "unit": unit,
                                            "choices": choices, "flag": flag, "kind": kind})


@dataclass(frozen=True)
class _Checked:
    """Checks every field against its metadata; so a settings object that exists is legal."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check(item, getattr(self, item.name))


@dataclass(frozen=True)
class DreamSettings(_Checked):
    """What is dreamed and how; may change between any two frames."""

    layers: str = option("mixed3", "what to dream: taps with weights, as in 'mixed3:1,mixed5:0.5'")
    channel: str = option("", "only these channels of the taps, as in '3,17'; all of them when empty")
    guide: str = option("", "a picture, or for render a video, whose features are dreamed toward", kind="picture")
    style: str = option("", "a picture whose style is dreamed toward", kind="picture")
    style_weight: float = option(1.0, "weight of the style beside the dream's own 1", low=0, high=100)
    style_layers: str = option("", "taps that the style is taken from, as in 'mixed0,mixed2'; one of each scale when "
                                   "empty")
    mask: str = option("", "a picture that says where to dream: white does, black is left alone", kind="picture")
    original_colors: bool = option(False, "change brightness only; the colours stay the frame's")
    tv: float = option(0.0, "weight of smoothness beside the dream's own 1: total variation", low=0, high=10)
    l2: float = option(0.0, "weight of pulling the picture toward grey, beside the dream's own 1", low=0, high=10)
    strength: float = option(1.0, "how much of the dream is shown", low=0, high=4)
    steps: int = option(1, "gradient steps on each octave of each frame", low=1, high=500)
    step_size: float = option(0.012, "length of one step", low=0.0001, high=0.5, unit="half ranges at mean gradient")
    octaves: int = option(2, "scales dreamed at, coarse to fine", low=1, high=12)
    octave_scale: float = option(1.4, "size ratio between octaves", low=1.05, high=4)
    jitter: int = option(16, "largest random shift before a step", low=0, high=512, unit="px")
    smooth: float = option(1.5, "gradient smoothing, relative; 0 is none", low=0, high=8)
    color: float = option(0.4, "how much of the gradient's colour is kept; 0 dreams in grey", low=0, high=1)
    keep: float = option(0.97, "how much of the dream is carried to the next frame", low=0, high=0.999)
    warmup_steps: int = option(12, "extra steps on the first frame and after a cut, so that the dream is there at once",
                        low=0, high=500)
    flow: str = option("dis", "optical flow that carries the dream", choices="streamdream.dream.optical_flow:FLOWS")
    trust: str = option("forward-backward", "how carried dream is checked", choices="streamdream.dream.warp:TRUSTS")
    stillness: float = option(0.0, "motion clears the dream: what moves so far from one dream to the next keeps a "
                                    "third of it; 0 never clears", low=0, high=100, unit="px of the field")
    cut: float = option(0.5, "a frame less like the last one than this starts anew; 0 never does", low=0, high=1,
                        unit="correlation")


@dataclass(frozen=True)
class StreamSettings(_Checked):
    """What is fixed for a run."""

    model: str = option("inception_v3", "network to dream with", choices="streamdream.models:MODELS")
    field_height: int = option(240, "lines at which the dream is computed; 0 is the picture's own", low=0, high=8192,
                               unit="px")
    backend: str = option("auto", "what executes a step", choices="streamdream.backends:BACKENDS")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps, ...")
    precision: str = option("auto", "arithmetic of the network", choices="streamdream.backends:PRECISIONS")
    tile_memory: int = option(600, "memory that a step may take; larger pictures are dreamed in tiles", low=50,
                              high=10**6, unit="MB")
    memory: str = option("auto", "what prepared steps (weights, engines) may hold in memory, as 500M or 2G; those that "
                                 "were not used for the longest time go first, and come again when they are used. auto "
                                 "is a quarter of the device's memory", kind="memory")
    seed: int = option(0, "of the random shifts; the same seed (and number of threads) gives the same dream", low=0,
                       high=2**31 - 1)


@dataclass(frozen=True)
class RenderSettings(_Checked):
    """Which part of a file is rendered, and how it is encoded."""

    start: float = option(0.0, "start at this time of the input", low=0, unit="s", flag="-ss", kind="time")
    duration: float = option(math.inf, "render this long", low=0, unit="s", flag="-t", kind="time")
    end: float = option(math.inf, "stop at this time of the input", low=0, unit="s", flag="-to", kind="time")
    codec: str = option("auto", "video encoder, as libx264, libx265, libvpx-vp9, ffv1; auto picks by the container",
                        flag="-c:v")
    crf: int = option(18, "quality of the encoder; lower is better and larger", low=0, high=63)
    encoder_preset: str = option("auto", "speed of the encoder, as veryfast, medium, slow; auto is the fast one here")


@dataclass(frozen=True)
class ZoomSettings(_Checked):
    """How each dream is moved to be the next frame, when a picture becomes a video."""

    zoom: float = option(1.02, "magnification of each frame; below 1 it shrinks", low=0.5, high=2)
    rotate: float = option(0.0, "turn of each frame, counter-clockwise", low=-180, high=180, unit="degrees")
    shift: str = option("0,0", "pixels right and down that each frame is moved by, as in '2,-1'")
    fps: float = option(30.0, "frames per second", low=1, high=240)


@dataclass(frozen=True)
class LiveSettings(_Checked):
    """How a live run goes."""

    min_dream_rate: float = option(12.0, "the dream is renewed at least so often: its field shrinks for that", low=1,
                             high=120, unit="Hz")
    fixed_field: bool = option(False, "keep to --field-height, however seldom the dream is renewed")
    seconds: float = option(math.inf, "stop after that", low=0, unit="s", kind="time")
    mirror: bool = option(False, "left is right, as in a mirror")
    rotate_source: str = option(
        "0", "turn the source clockwise", unit="degrees", choices="streamdream.media.sources.transform:ROTATIONS"
    )
    crop: str = option("", "dream this part of the turned source only, as 640x480+10+20, or 640x480 in the middle")
    capture_size: str = option("", "ask a camera for this size, as 1280x720; the best usual one when empty")
    capture_rate: float = option(0.0, "ask a camera or the screen for so many pictures; 0 is 30", low=0, high=1000,
                                 unit="Hz")
    loop: bool = option(True, "a file begins again at its end")


@dataclass(frozen=True)
class AutomationSettings(_Checked):
    """What turns the knobs by itself, live and when a file is rendered."""

    playlist: str = option("", "layers one after the other, each for some seconds and with settings of its own: "
                               "'mixed3@20; mixed4:1,mixed5:0.5 strength=1.5@30; conv2d_3'")
    playlist_seconds: float = option(20.0, "how long an entry without a time of its own lasts", low=0.1, unit="s")
    fade: float = option(1.0, "a change of layer or network fades over so long", low=0, high=3600, unit="s")
    sound: str = option("", "the dream's strength follows this sound: 'source' is the input's own, 'mic' the "
                            "microphone, or a file", kind="file")
    sound_band: str = option("all", "the part of the sound that counts", choices="streamdream.media.audio_level:BANDS")
    sound_depth: float = option(0.5, "how much the sound changes the strength: 1 goes from none to twice", low=0,
                                high=1)


@dataclass(frozen=True)
class AtlasSettings(_Checked):
    """How the sheet of an atlas is laid out."""

    cell: int = option(160, "width of each dream on the sheet", low=32, high=4096, unit="px")
    columns: int = option(0, "dreams in a row; 0 is about three wide to two high", low=0, high=1000)


LOGS = {"text": "a line for people", "json": "a line of JSON for machines"}


@dataclass(frozen=True)
class WebSettings(_Checked):
    """How the browser app is served, and what its visitors may."""

    host: str = option("127.0.0.1", "address to listen on; any but this machine's own wants --auth or --token")
    port: int = option(7860, "to listen on; 0 takes a free one", low=0, high=65535)
    auth: str = option("", "who may in, as user:hash, several with commas; streamdream web --hash makes one")
    token: str = option("", "a secret; whoever opens the link that holds it may in. 'new' makes one; several as "
                            "name:secret, with commas, can be put out one by one")
    hosts: str = option("", "names by which it may be reached beside its address, with commas, as behind a proxy")
    trusted_proxies: str = option("127.0.0.1,::1", "addresses and networks of proxies, with commas; what their "
                                      "X-Forwarded headers say of a visitor counts")
    root_path: str = option("", "path under which a proxy serves it, as in /dream")
    frame_ancestors: str = option("", "sites whose pages may show it in a frame, with commas, as in "
                                      "https://blog.example; none by itself")
    share: bool = option(False, "a public link through Gradio's tunnel, guarded by a token")
    ssl_certfile: str = option("", "certificate, for https; other machines' cameras are open to https only",
                               kind="file")
    ssl_keyfile: str = option("", "key of the certificate", kind="file")
    max_sessions: int = option(4, "live dreams at once; who comes later waits in line", low=1, high=1000)
    sessions_per_address: int = option(0, "of them from one address; 0 is all but one, or all from this machine", low=0,
                                       high=1000)
    connections_per_address: int = option(64, "connections held open from one address", low=8, high=100_000)
    idle_seconds: float = option(60.0, "a live dream that gets no picture for so long ends", low=1, unit="s",
                                 kind="time")
    session_seconds: float = option(1800.0, "a live dream that lasts longer ends when somebody waits", low=1, unit="s",
                                    kind="time")
    upload_mb: float = option(200.0, "size of a file that a visitor may send", low=0.1, high=1e5, unit="MB")
    upload_seconds: float = option(600.0, "length of a video that a visitor may send", low=1, unit="s", kind="time")
    upload_pixels: int = option(3840 * 2160, "of each picture that a visitor may send", low=256, high=10**9)
    metrics_port: int = option(0, "Prometheus metrics on this port of the machine itself; 0 is none", low=0, high=65535)
    log: str = option("text", "what a line of the log is", choices="streamdream.settings:LOGS")


Group = type[_Checked]
Settings = TypeVar("Settings", bound=_Checked)
GROUPS: tuple[Group, ...] = (DreamSettings, StreamSettings, RenderSettings, ZoomSettings, AtlasSettings, LiveSettings,
                             AutomationSettings, WebSettings)


def choices(item: dataclasses.Field[Any]) -> list[str]:
    """The legal values of a field, or none when it is free."""
    registry = item.metadata["choices"]
    if not registry:
        return []
    module, _, name = registry.partition(":")
    return list(getattr(importlib.import_module(module), name))


def flag(item: dataclasses.Field[Any]) -> str:
    """The command-line flag of a field."""
    return str(item.metadata["flag"]) or "--" + item.name.replace("_", "-")


def describe_range(item: dataclasses.Field[Any]) -> str:
    """As in ``0..1``, ``0 or more``, ``dis, farneback, none``; empty when anything goes."""
    low, high = item.metadata["low"], item.metadata["high"]
    if low is not None:
        return f"{low:g}..{high:g}" if high is not None else f"{low:g} or more"
    return ", ".join(choices(item))


def check(item: dataclasses.Field[Any], value: Any) -> None:
    """Raises SettingsError or UnknownName when ``value`` is not legal for the field."""
    low, high = item.metadata["low"], item.metadata["high"]
    if low is not None and not low <= value <= (math.inf if high is None else high):
        wanted = f"{describe_range(item)} {item.metadata['unit']}".rstrip()
        raise SettingsError(f"{flag(item)} is {value:.10g}, but must be {wanted}")
    if item.metadata["kind"] == "memory":
        parse(item, value)
    legal = choices(item)
    if legal and value not in legal:
        raise UnknownName(item.name.replace("_", " "), str(value), legal)


def parse(item: dataclasses.Field[Any], text: str) -> Any:
    """``text`` from a flag or the environment -> the field's type."""
    try:
        return _parser(item)[0](text)
    except ValueError:
        raise SettingsError(f"{flag(item)} is {text!r}, but must be {describe_type(item)}") from None


def describe_type(item: dataclasses.Field[Any]) -> str:
    """As in ``a whole number``."""
    return _parser(item)[1]


def _parser(item: dataclasses.Field[Any]) -> tuple[Callable[[str], Any], str]:
    parsers: dict[object, tuple[Callable[[str], Any], str]] = {
        "time": (parse_seconds, "a time such as 90, 1:30 or 0:01:30.5"),
        "memory": (_check_memory, f"auto, or {SMALLEST_MEMORY} or more, as 500M, 2G or 1.5GiB"),
        bool: (parse_switch, "true or false"),
        int: (int, "a whole number"), float: (float, "a number"), str: (str, "text")}
    return parsers.get(item.metadata["kind"]) or parsers[type(item.default)]


def parse_seconds(text: str) -> float:
    """``90``, ``1:30``, ``0:01:30.5`` -> seconds. Raises ValueError."""
    parts = [float(part) for part in text.split(":")]
    if len(parts) > 3 or any(part < 0 or math.isnan(part) for part in parts):
        raise ValueError(text)
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def parse_memory(text: str) -> int:
    """``500M``, ``2G``, ``1.5GiB``, ``2GB`` or bytes -> bytes, and ``auto`` -> 0. Raises ValueError.

    K, M, G and T are powers of 1024, as are KiB and so on; KB and so on are powers of 1000: as GNU's tools take them.
    """
    if text.strip().lower() == "auto":
        return 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([KMGT])(I?B)?)?", text.strip().upper(), re.ASCII)
    if found is None:
        raise ValueError(text)
    number, letter, end = found.groups()
    return int(float(number) * (1000 if end == "B" else 1024) ** (" KMGT".index(letter) if letter else 0))


def _check_memory(text: str) -> str:
    if text.strip().lower() != "auto" and parse_memory(text) < parse_memory(SMALLEST_MEMORY):
        raise ValueError(text)
    return text


def parse_switch(text: str) -> bool:
    """``true``, ``yes``, ``on``, ``1`` and their opposites. Raises ValueError."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if text.strip().lower() not in words:
        raise ValueError(text)
    return words[text.strip().lower()]


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def about_preset(name: str) -> str:
    """What a shipped preset stands for, and where it departs from what it follows."""
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    return " ".join(str(tomllib.loads(text)["about"]).split())


def preset_path(name: str) -> Path:
    """The file of a shipped preset, or a ``.toml`` file of the user's; it need not exist."""
    return Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"


def read_preset(name: str) -> dict[str, Any]:
    """Values of a shipped preset, or of a ``.toml`` file of the user's."""
    path = preset_path(name)
    if not name.endswith(".toml") and name not in preset_names():
        raise UnknownName("preset", name, preset_names())
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"preset {name}: {error}") from None
    known = {item.name: item for group in GROUPS for item in dataclasses.fields(group)}
    values.pop("about", None)
    for key, value in values.items():
        if key not in known:
            raise UnknownName(f"key in preset {name},", key, known)
        values[key] = parse(known[key], str(value))
    return values


@dataclass(frozen=True)
class Run:
    """All settings of a run."""

    dream: DreamSettings
    stream: StreamSettings
    render: RenderSettings
    zoom: ZoomSettings
    atlas: AtlasSettings
    live: LiveSettings
    automation: AutomationSettings
    web: WebSettings


def resolve(flags: Mapping[str, str], environment: Mapping[str, str], preset: str = "") -> Run:
    """Settings for a run. ``flags`` maps field names to the text given for them.

    Raises SettingsError or UnknownName, in one line, for anything that is not legal.
    """
    from_preset = read_preset(preset) if preset else {}
    return Run(*(_build(group, flags, environment, from_preset) for group in GROUPS))  # type: ignore[arg-type]


def _build(group: type[Settings], flags: Mapping[str, str], environment: Mapping[str, str],
           preset: Mapping[str, Any]) -> Settings:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(group):
        from_environment = environment.get(ENVIRONMENT_PREFIX + item.name.upper())
        if item.name in flags:
            values[item.name] = parse(item, flags[item.name])
        elif from_environment is not None:
            values[item.name] = parse(item, from_environment)
        elif item.name in preset:
            values[item.name] = preset[item.name]
    return group(**values)


def to_toml(groups: Iterable[Any]) -> str:
    """The settings as a preset file: ``--print-config`` writes it, ``--preset FILE.toml`` reads it."""
    lines = []
    for group in groups:
        for item in dataclasses.fields(group):
            value = getattr(group, item.name)
            # a JSON text is a TOML one, too
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
            comment = "; ".join(part for part in (item.metadata["help"], item.metadata["unit"]) if part)
            lines.append(f"{item.name} = {text}  # {comment}")
    return "\n".join(lines) + "\n"


def parse_layers(text: str, flag: str = "--layers") -> TapWeights:
    """``mixed3:1,mixed5:0.5`` -> ((tap, weight), ...); a missing weight is 1. Raises SettingsError."""
    pairs = []
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            number = float(weight or 1)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SettingsError(f"{flag}: the weight of {name} is {weight!r}, but must be a number")
        if not name:
            raise SettingsError(f"{flag} is {text!r}, but must be taps as in 'mixed3:1,mixed5:0.5'")
        pairs.append((name, number))
    if len({name.replace("/", "_") for name, _ in pairs}) < len(pairs):
        raise SettingsError(f"{flag} {text!r} names a tap twice")
    if not any(weight for _, weight in pairs):
        raise SettingsError(f"{flag} {text!r} has no weight other than 0")
    return tuple(pairs)


def parse_channels(text: str) -> tuple[int, ...]:
    """``3,17`` -> (3, 17). Raises SettingsError."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise SettingsError(f"--channel is {text!r}, but must be whole numbers, as in '3,17'") from None
