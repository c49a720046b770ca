"""Every option, declared once, as a field of a frozen dataclass. Flags, presets, docs and sliders are made from them.

``DreamSettings`` may change during a run, ``StreamSettings`` are fixed for a run, ``RenderSettings`` concern the
output file only. A value comes from the first of: flag, environment (``STREAMDREAM_KEEP=0.9``), preset, default.
``settings_fields`` declares, parses and checks one field.
"""
from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamdream.errors import SettingsError, UnknownName, error_text
from streamdream.settings_fields import check, check_strangers, option, parse
from streamdream.settings_parsing import MAX_TOML_BYTES, parse_toml, toml_names

PRESETS = Path(__file__).with_name("presets")
LOOK_PREFIX = "look-"
"""Of the presets that choose only how a dream looks."""
PRESET_NOTES = ("about", "family")
"""Keys of a preset that are no settings."""
ENVIRONMENT_PREFIX = "STREAMDREAM_"
OTHER_VARIABLES = ("STREAMDREAM_CACHE",)
"""Environment variables with the prefix that are not settings."""
MAX_START_SECONDS = 10**8
"""FFmpeg's timestamps overflow far above."""
RENAMED_FIELDS = {"onset": "warmup_steps", "pin": "fixed_field", "dream_hz": "min_dream_rate", "turn": "rotate_source"}
"""Old name -> new name, for error messages about flags, variables, presets and settings tracks."""


@dataclass(frozen=True)
class _Checked:
    """Checks every field when it is made, so that every settings object is legal."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check(item, getattr(self, item.name))


@dataclass(frozen=True)
class DreamSettings(_Checked):
    """Objective, steps and carrying of the dream; may change between two frames."""

    layers: str = option("mixed0[120,90]", "layers to dream, with weights and channels, such as "
                                           "'mixed3:1,mixed5[33,220]:0.5'")
    channel: str = option("", "channels of the layers that name none, such as '3,17'; empty for all")
    guide: str = option("", "image whose features to dream; for render also a video", kind="picture")
    style: str = option("", "image whose style to dream", kind="picture")
    style_weight: float = option(1.0, "weight of the style; the layers have weight 1", low=0, high=100)
    style_layers: str = option("", "layers to take the style from, such as 'mixed0,mixed2'; empty for one per scale")
    mask: str = option("", "image that limits the dream: white is dreamed, black is not", kind="picture")
    original_colors: bool = option(False, "change brightness only and keep the colors of the frame")
    tv: float = option(0.0, "weight of the total variation penalty, for a smoother dream", low=0, high=10)
    l2: float = option(0.0, "weight of the L2 penalty, which pulls pixels toward grey", low=0, high=10)
    strength: float = option(1.0, "opacity of the dream; above 1 exaggerates it", low=0, high=4)
    steps: int = option(1, "gradient steps per octave and frame", low=1, high=500)
    step_size: float = option(0.012, "length of a gradient step", low=0.0001, high=0.5,
                              unit="of half the value range, at the mean gradient")
    octaves: int = option(2, "number of scales to dream at, from coarse to fine", low=1, high=12)
    octave_scale: float = option(1.4, "size ratio of neighbouring octaves", low=1.05, high=4)
    jitter: int = option(48, "maximum random shift before a step; below 32 the borders stay pale", low=0, high=512,
                         unit="px")
    smooth: float = option(1.5, "relative gradient smoothing; 0 for none", low=0, high=8)
    color: float = option(1.0, "saturation of the gradient; 0 for grey", low=0, high=1)
    palette: float = option(1.15, "power of the colors of photographs in the gradient; 0 for its own", low=0, high=2)
    equalize: bool = option(True, "give fine and coarse detail of the gradient equal strength")
    legibility: float = option(0.0, "how readable the picture stays; the dream moves to where it is busy", low=0,
                               high=1)
    consistency: float = option(0.0, "how calm the dream is; 0 lets it boil", low=0, high=1)
    keep: float = option(0.97, "fraction of the dream that is carried to the next frame", low=0, high=0.999)
    regrowth: float = option(3.0, "maximum gain of the steps where motion, a cut or another look has cleared the "
                                  "dream; 1 for none", low=1, high=16)
    warmup_steps: int = option(12, "extra steps on the first frame and after a scene cut", low=0, high=500)
    flow: str = option("auto", "optical flow method that carries the dream; auto for dis on a processor and "
                               "lucas-kanade on a GPU",
                       choices="streamdream.dream.optical_flow:FLOWS")
    trust: str = option("robust", "where the carried dream is kept; correlation and photometric need one flow",
                        choices="streamdream.dream.trust:TRUSTS")
    stillness: float = option(0.0, "motion per dream at which only a third of the dream is kept; 0 to keep all", low=0,
                              high=100, unit="px of the field")
    cut: float = option(0.5, "correlation of two frames below which a scene cut is assumed; 0 for never", low=0, high=1)


@dataclass(frozen=True)
class StreamSettings(_Checked):
    """Model, backend and resolution; fixed for a run."""

    model: str = option("inception_v3", "network to dream with", choices="streamdream.models:MODELS")
    field_height: int = option(240, "height of the field, the resolution of the dream; 0 for that of the input", low=0,
                               high=8192, unit="px")
    backend: str = option("auto", "implementation of a step", choices="streamdream.backends:BACKENDS")
    device: str = option("auto", "PyTorch device: auto, cpu, cuda, cuda:1, mps, ...")
    precision: str = option("auto", "floating-point format of the network", choices="streamdream.backends:PRECISIONS")
    frame_path: str = option("auto", "where all of a frame but decoding and encoding is computed",
                             choices="streamdream.dream.options:FRAME_PATHS")
    tile_memory: int = option(0, "memory limit of a step; larger pictures are dreamed in tiles; 0 for 600 on a "
                                 "processor and an eighth of a GPU's memory", low=0,
                              high=10**6, unit="MB")
    memory: str = option("auto", "memory limit of cached weights and engines, such as 500M or 2G; the least recently "
                                 "used are evicted; auto for a quarter of the device's memory", kind="memory")
    threads: int = option(0, "number of threads of a step on the processor, in live the maximum; 0 for PyTorch's "
                             "default, mostly one per core", low=0, high=1024)
    seed: int = option(0, "seed of the random shifts; the same seed and number of threads give the same dream", low=0,
                       high=2**31 - 1)


@dataclass(frozen=True)
class RenderSettings(_Checked):
    """Time range and decoding of the input, and encoding of the output."""

    start: float = option(0.0, "start time in the input", low=0, high=MAX_START_SECONDS, unit="s", flag="-ss",
                          kind="time")
    duration: float = option(math.inf, "duration of the output", low=0, unit="s", flag="-t", kind="time")
    end: float = option(math.inf, "end time in the input", low=0, unit="s", flag="-to", kind="time")
    hwaccel: str = option("auto", "what decodes a video: auto for the GPU of --device where that pays, none for "
                                  "software, or a type of GPU as in ffmpeg",
                          choices="streamdream.media.hardware_decoding:HWACCELS")
    codec: str = option("auto", "video encoder, such as libx264, libx265, libvpx-vp9, ffv1; gpu for one that runs on a "
                                "GPU; auto for the default of the container", flag="-c:v")
    crf: int = option(18, "constant rate factor of the encoder; lower for better quality and larger files", low=0,
                      high=63)
    encoder_preset: str = option("auto", "speed of the encoder, such as veryfast, medium, slow; auto for a fast one")
    pixel_format: str = option("auto", "pixel format of the encoder, such as yuv420p, yuv420p10le; auto for the "
                                       "nearest to the input's that players of the output know", flag="--pix-fmt")
    encoder_options: str = option("", "further options of the encoder, as ffmpeg -h encoder=NAME lists them: "
                                     "'tune=grain,bf=2'", flag="-e")
    sdr: bool = option(False, "map an HDR input to SDR (BT.709), also where the output could hold HDR")
    audio_codec: str = option("auto", "sound: auto copies what the output and its players know and encodes the rest, "
                                      "copy copies all, or an encoder such as aac, libopus", flag="-c:a")
    audio_bit_rate: str = option("", "bit rate of encoded sound, such as 160k; empty for a good one", flag="-b:a")
    no_audio: bool = option(False, "leave all sound out", flag="-an")
    map: str = option("", "streams to keep, in ffmpeg's form, separated by spaces: '0:a:1 0:s', '-0:d'; empty for all",
                      flag="-map")
    deinterlace: str = option("auto", "make whole pictures of interlaced ones",
                              choices="streamdream.media.deinterlace:MODES")
    input_rate: float = option(0.0, "frame rate of an input that is a sequence of pictures; 0 for 25", low=0, high=1000,
                               unit="Hz", flag="-r")
    chunk_frames: int = option(250, "frames between two points from which an interrupted render goes on; few make a "
                                    "larger file", low=8, high=100_000)


@dataclass(frozen=True)
class ZoomSettings(_Checked):
    """Motion from one frame to the next, for a video of one picture."""

    zoom: float = option(1.02, "magnification per frame; below 1 to zoom out", low=0.5, high=2)
    rotate: float = option(0.0, "counter-clockwise rotation per frame", low=-180, high=180, unit="degrees")
    shift: str = option("0,0", "shift per frame to the right and down, such as '2,-1', in px")
    fps: float = option(30.0, "frame rate", low=1, high=240, unit="Hz")


@dataclass(frozen=True)
class LiveSettings(_Checked):
    """Rates and geometry of a live run."""

    min_dream_rate: float = option(12.0, "minimum rate of dreams; the field is made smaller to reach it", low=1,
                                   high=120, unit="Hz")
    fixed_field: bool = option(False, "keep --field-height even where the rate of dreams is below the minimum")
    seconds: float = option(math.inf, "duration of the run", low=0, unit="s", kind="time")
    mirror: bool = option(False, "mirror the source horizontally")
    rotate_source: str = option("0", "clockwise rotation of the source", unit="degrees",
                                choices="streamdream.media.sources.transform:ROTATIONS")
    crop: str = option("", "part of the rotated source to dream, such as 640x480+10+20, or 640x480 for its centre")
    capture_size: str = option("", "frame size to request from a camera, such as 1280x720; empty for its best common "
                                   "size", kind="size")
    capture_rate: float = option(0.0, "frame rate to request from a camera or the screen; 0 for 30", low=0, high=1000,
                                 unit="Hz")
    loop: bool = option(True, "repeat a file from its start")


@dataclass(frozen=True)
class AutomationSettings(_Checked):
    """Changes of settings over time, for live and render."""

    playlist: str = option("", "layers in sequence, each with an optional duration in s and settings: "
                               "'mixed3@20; mixed4:1,mixed5:0.5 strength=1.5@30; conv2d_3'")
    playlist_seconds: float = option(20.0, "duration of a playlist entry that names none", low=0.1, unit="s",
                                     kind="time")
    fade: float = option(1.0, "duration of the crossfade when layers or model change", low=0, high=3600, unit="s",
                         kind="time")
    journey: float = option(0.0, "duration of a slow journey through the layers and channels; 0 for none", low=0,
                            high=86_400, unit="s", kind="time")
    sound: str = option("", "sound that controls the strength: 'source' for that of the input, 'mic', or a file",
                        kind="file")
    sound_band: str = option("all", "frequency band of the sound", choices="streamdream.media.audio_level:BANDS")
    sound_depth: float = option(0.5, "effect of the sound; 1 varies the strength between 0 and twice its value", low=0,
                                high=1)


@dataclass(frozen=True)
class AtlasSettings(_Checked):
    """Layout of the sheet of an atlas."""

    cell: int = option(160, "width of a dream on the sheet", low=32, high=4096, unit="px")
    columns: int = option(0, "dreams per row; 0 for a sheet of about 3:2", low=0, high=1000)


LOGS = {"text": "lines for people", "json": "JSON lines for machines"}


@dataclass(frozen=True)
class WebSettings(_Checked):
    """Address, access and limits of the web server."""

    host: str = option("127.0.0.1", "address to listen on; any but the loopback needs --auth or --token")
    port: int = option(7860, "port to listen on; 0 for a free one", low=0, high=65535)
    auth: str = option("", "users, as user:hash, separated by commas; streamdream web --hash prints a hash")
    token: str = option("", "secrets of access links, as SECRET or name:SECRET, separated by commas; 'new' for a "
                            "random one; a named one can be revoked alone")
    hosts: str = option("", "further host names of the server, separated by commas, for example behind a proxy")
    trusted_proxies: str = option("127.0.0.1,::1", "addresses and networks of proxies, with commas, that are believed")
    root_path: str = option("", "path prefix under which a proxy serves the app, such as /dream")
    frame_ancestors: str = option("", "sites that may embed the app in a frame, with commas, as https://blog.example")
    tabs: str = option("live,video,picture,dreams,layers", "tabs of the page in their order, separated by commas")
    banner: str = option("", "text that the page shows at its top")
    terms: str = option("", "file of plain text that a visitor has to agree to before the first use", kind="file")
    share: bool = option(False, "open a public link through Gradio's tunnel, protected by a token")
    ssl_certfile: str = option("", "certificate for HTTPS, in PEM; browsers on other machines give camera access over "
                                   "HTTPS only", kind="file")
    ssl_keyfile: str = option("", "private key of the certificate, in PEM", kind="file")
    max_sessions: int = option(4, "concurrent live sessions; more visitors wait in a queue", low=1, high=1000)
    sessions_per_address: int = option(0, "live sessions per address; 0: one below --max-sessions", low=0, high=1000)
    connections_per_address: int = option(64, "open connections per address", low=8, high=100_000)
    idle_seconds: float = option(60.0, "a live session without frames ends after it", low=1, unit="s", kind="time")
    session_seconds: float = option(1800.0, "a live session ends after it if others wait", low=1, unit="s", kind="time")
    upload_mb: float = option(200.0, "maximum size of an uploaded file", low=0.1, high=1e5, unit="MB")
    upload_seconds: float = option(600.0, "maximum duration of an uploaded video", low=1, unit="s", kind="time")
    upload_pixels: int = option(3840 * 2160, "maximum number of pixels of a frame of an uploaded video; a picture may "
                                "have six times as many", low=256, high=10**9)
    keep_hours: float = option(24.0, "how long uploads and dreams are kept, also when the server is restarted; 0: half "
                                     "an hour, and no longer than the server runs", low=0, high=8760, unit="h")
    keep_gb: float = option(10.0, "size of all kept dreams; the oldest go first", low=0.1, high=1e6, unit="GB")
    keep_folder: str = option("", "folder of what one server keeps; by default one for each --port in the cache folder")
    shared_folder: str = option("", "folder of uploads, dreams and logins that several servers of one address share")
    cluster: str = option("", "Ray cluster that renders the videos of visitors: auto, or ray://HOST:PORT")
    metrics_port: int = option(0, "port for Prometheus metrics, without login; 0 for none", low=0, high=65535)
    metrics_host: str = option("127.0.0.1", "address to listen on for metrics, which have no login")
    drain_seconds: float = option(0.0, "how long the server goes on for its visitors after SIGTERM, without new ones; "
                                       "0: it stops at once", low=0, high=86400, unit="s", kind="time")
    log: str = option("text", "format of the log", choices="streamdream.settings:LOGS")


Group = type[_Checked]
GROUPS: tuple[Group, ...] = (DreamSettings, StreamSettings, RenderSettings, ZoomSettings, AtlasSettings, LiveSettings,
                             AutomationSettings, WebSettings)


def all_fields() -> dict[str, dataclasses.Field[Any]]:
    """Name -> field, of all groups."""
    return {item.name: item for group in GROUPS for item in dataclasses.fields(group)}


def maximum(group: Group, name: str) -> float:
    """The highest legal value of a field that has one."""
    high: float = group.__dataclass_fields__[name].metadata["high"]
    return high


def preset_names() -> list[str]:
    return list(toml_names(PRESETS))


def look_names() -> list[str]:
    return [name for name in preset_names() if name.startswith(LOOK_PREFIX)]


def about_preset(name: str) -> str:
    """The description of a shipped preset, with its differences from what it reproduces."""
    return " ".join(str(tomllib.loads(preset_text(name))["about"]).split())


def preset_family(name: str) -> str:
    """The family of a shipped preset, such as ``flora``; empty where it names none."""
    return str(tomllib.loads(preset_text(name)).get("family", ""))


def preset_text(name: str) -> str:
    """The TOML text of a shipped preset. Raises UnknownName."""
    if name not in preset_names():
        raise UnknownName("preset", name, preset_names())
    return preset_path(name).read_text(encoding="utf-8")


def preset_path(name: str) -> Path:
    """The file of a shipped preset, or a file of the user's; it need not exist."""
    return PRESETS / f"{name}.toml" if name in preset_names() else Path(name)


def read_preset(name: str) -> dict[str, Any]:
    """The values of a shipped preset, or of a ``.toml`` file. Raises SettingsError or UnknownName."""
    try:
        if not name.endswith(".toml"):
            preset_text(name)  # raises where there is none
        with preset_path(name).open("rb") as file:
            values = parse_toml(file.read(MAX_TOML_BYTES + 1))
    except (OSError, ValueError) as error:
        raise SettingsError(f"preset {name}: {error_text(error)}") from None
    for key in PRESET_NOTES:
        values.pop(key, None)
    if not values:
        raise SettingsError(f"preset {name} is empty; streamdream render --print-config writes a whole one")
    for key, value in values.items():
        if not isinstance(value, str | bool | int | float):
            raise SettingsError(f"preset {name}: {key} is no text, number or switch")
        item = field_named(key, f"key in preset {name},")
        check_strangers(item, value)
        values[key] = parse(item, str(value))
    return values


def field_named(name: str, kind: str, known: Mapping[str, dataclasses.Field[Any]] | None = None
                ) -> dataclasses.Field[Any]:
    """Return the field of that name. Raises UnknownName, with the new name of a field that was renamed."""
    known = known or all_fields()
    if name not in known:
        raise UnknownName(kind, name, known, renamed=RENAMED_FIELDS.get(name, ""))
    return known[name]


@dataclass(frozen=True)
class Run:
    """All settings of a run, one field per group."""

    dream: DreamSettings
    stream: StreamSettings
    render: RenderSettings
    zoom: ZoomSettings
    atlas: AtlasSettings
    live: LiveSettings
    automation: AutomationSettings
    web: WebSettings


Preset = str | Mapping[str, Any]
"""The name of a preset, or its values, as ``read_preset`` returns them."""


def resolve(flags: Mapping[str, str], environment: Mapping[str, str], preset: Preset = "") -> Run:
    """Build the settings of a run. ``flags`` maps field names to their text.

    Raises SettingsError or UnknownName with one line.
    """
    values = _text_values(flags, environment, preset)
    return Run(*(group(**{item.name: values[item.name] for item in dataclasses.fields(group) if item.name in values})
                 for group in GROUPS))  # type: ignore[arg-type]


def is_named(name: str, flags: Mapping[str, str], environment: Mapping[str, str], preset: Preset = "") -> bool:
    """Whether a flag, the environment or the preset sets that field."""
    return name in _text_values(flags, environment, preset)


def _text_values(flags: Mapping[str, str], environment: Mapping[str, str], preset: Preset) -> dict[str, Any]:
    for old, new in RENAMED_FIELDS.items():
        if _variable(old) in environment:
            raise SettingsError(f"the environment variable {_variable(old)} is now {_variable(new)}")
    values = dict(preset) if isinstance(preset, Mapping) else read_preset(preset) if preset else {}
    for name, item in all_fields().items():
        text = flags.get(name, environment.get(_variable(name)))
        if text is not None:
            values[name] = parse(item, text)
    return values


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def misspelled_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Unknown environment variable with our prefix -> the setting's variable that resembles it.

    One that resembles none is somebody else's: Kubernetes sets variables named after services.
    """
    known = [*map(_variable, all_fields()), *OTHER_VARIABLES]
    close = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.9) for name in environment
             if name.startswith(ENVIRONMENT_PREFIX) and name not in known}
    return {name: names[0] for name, names in close.items() if names}


def to_toml(groups: Iterable[Any]) -> str:
    """Format the settings as a preset file, which ``--preset FILE.toml`` reads."""
    return "".join(f"{toml_line(item.name, getattr(group, item.name))}  # {describe_field(item)}\n"
                   for group in groups for item in dataclasses.fields(group))


def toml_line(key: str, value: str | bool | float) -> str:
    # a JSON string is a TOML string
    return f"{key} = {json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else value}"


def describe_field(item: dataclasses.Field[Any]) -> str:
    """The help text of a field, with its unit."""
    return "; ".join(part for part in (item.metadata["help"], item.metadata["unit"]) if part)
