"""The recipe of a dream: what makes it again, as a preset in the metadata of the dream itself.

    compose ──text──▶ media/metadata.py ──file──▶ read ──Recipe──▶ resolve_files ──values──▶ settings.resolve

Of files it holds names and digests only, never folders. What is read comes from a stranger: every value is checked as
that of any preset, and nothing but settings of a dream is taken from it.
"""
from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream import __version__, models, settings, settings_fields
from streamdream.errors import SettingsError, StreamdreamError, UsageError
from streamdream.media import metadata
from streamdream.settings import AutomationSettings, DreamSettings, RenderSettings, StreamSettings, ZoomSettings
from streamdream.settings_parsing import parse_toml

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer

FIELDS = {item.name: item
          for group in (DreamSettings, StreamSettings, AutomationSettings, ZoomSettings, RenderSettings)
          for item in fields(group) if item.name not in ("device", "memory", "hwaccel")}  # those are of the machine
FILES = tuple(item.name for item in FIELDS.values() if item.metadata["kind"] in ("picture", "file"))
NO_FILES = {"sound": ("source", "mic")}
"""Values of a field of ``FILES`` that are no file."""
PLAYLIST_FILE = re.compile(rf"(?<![^\s;])({'|'.join(FILES)})=([^\s;@]+)")
"""A file that an entry of a playlist names."""
DIGEST_DIGITS = 16
"""Hexadecimal digits of a file's SHA-256."""
MAX_LISTED = 5
"""Unknown keys that a warning lists."""
MAX_NAME, MAX_MESSAGE = 255, 300
"""Characters of a file's name, and of what is wrong with a value."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What the recipe of ``path`` says. File names are without folders."""

    path: str
    values: dict[str, Any]
    """Of settings, by field."""
    version: str
    """Of the streamdream that made the dream."""
    weights: str
    """File name of the network's weights."""
    settings_track: str
    """File name; "" without one."""
    digests: dict[str, str]
    """File name -> the first ``DIGEST_DIGITS`` of its SHA-256."""
    unknown: list[str]
    """Keys that are no settings of a dream; they are ignored."""


def compose(dreamer: Dreamer, groups: Sequence[Any], settings_track: str = "",
            names: Mapping[str, str] | None = None) -> str:
    """Return the recipe of a dream by ``dreamer`` and the settings in ``groups``; "" when it is too long.

    ``names`` are the names of files that have others on the disk, by path.
    """
    backend = dreamer.backend
    resolved: dict[str, Any] = {
        "model": dreamer.model.name, "field_height": dreamer.options.field_height, "seed": dreamer.seed,
        "backend": backend.name, "precision": backend.precision}
    groups = [replace(group, **resolved) if isinstance(group, StreamSettings) else group for group in groups]
    values = {item.name: getattr(group, item.name) for group in groups for item in fields(group)
              if item.name in FIELDS}
    digests: dict[str, str] = {}

    def take(path: str) -> str:
        """Note the digest of a file, and return its name."""
        name = (names or {}).get(path) or _name(path)
        if digest := _digest(path):
            digests[name] = digest
        return name

    for field, path in _named_files(values):
        values[field] = take(path)
    if "playlist" in values:
        values["playlist"] = PLAYLIST_FILE.sub(lambda match: f"{match[1]}={take(match[2])}", values["playlist"])
    weights = models.get(dreamer.model.name).weights_path()
    about = {"version": __version__, "weights": take(str(weights)) if weights else "",
             "settings_track": take(settings_track) if settings_track else ""}
    lines = [metadata.MARK, *(settings.toml_line(*pair) for pair in values.items()),
             "[recipe]", *(settings.toml_line(*pair) for pair in about.items()),
             "[recipe.sha256]", *(settings.toml_line(json.dumps(name, ensure_ascii=False), digest)
                                  for name, digest in digests.items())]
    text = "\n".join(lines) + "\n"
    text = text.encode(errors="replace").decode()  # a file name need not be text
    if len(text.encode()) <= metadata.MAX_BYTES:
        return text
    log.warning("the output has no recipe: it would be longer than %d bytes", metadata.MAX_BYTES)
    return ""


def read(path: str) -> Recipe:
    """Return the recipe in a dream. Raises UsageError when there is none, SettingsError when a value is not legal."""
    text = metadata.read_recipe(path)
    if not text:
        raise UsageError(f"{path} carries no recipe")
    try:
        stored = parse_toml(text.encode())
    except ValueError:
        raise SettingsError(f"{path}: its recipe is damaged") from None
    try:
        about = stored.pop("recipe", {})
        about = about if isinstance(about, dict) else {}
        digests = about.get("sha256")
        values = {name: _check(name, value) for name, value in stored.items() if name in FIELDS}
        for _, name in [*_named_files(values), *PLAYLIST_FILE.findall(values.get("playlist", ""))]:
            _check_name(name)
        return Recipe(path, values, _text(about, "version"), _check_name(_text(about, "weights")),
                      _check_name(_text(about, "settings_track")),
                      {name: digest for name, digest in (digests if isinstance(digests, dict) else {}).items()
                       if name.isprintable() and re.fullmatch(f"[0-9a-f]{{{DIGEST_DIGITS}}}", str(digest), re.ASCII)},
                      [repr(key)[:40] for key in stored if key not in FIELDS])
    except StreamdreamError as error:
        raise SettingsError(f"{path}: its recipe is not valid: {str(error)[:MAX_MESSAGE]}") from None


def unknown_keys(recipe: Recipe) -> list[str]:
    """Return a warning about the keys that are ignored, if there are any."""
    listed = ", ".join(recipe.unknown[:MAX_LISTED]) + (", ..." if len(recipe.unknown) > MAX_LISTED else "")
    return [f"the recipe of {recipe.path} has keys that are no settings of a dream: {listed}"] if listed else []


def listed_files(recipe: Recipe) -> Iterable[str]:
    """One line for each file that the recipe names."""
    roles = [(settings_fields.flag_name(field), name) for field, name in _named_files(recipe.values)]
    roles += [("--playlist", name) for _, name in PLAYLIST_FILE.findall(recipe.values.get("playlist", ""))]
    roles += [("--settings-track", recipe.settings_track), ("weights", recipe.weights)]
    return [f"{role}: {name}, sha256 {recipe.digests.get(name, 'unknown')}" for role, name in roles if name]


def check_files(recipe: Recipe, replaced: Collection[str]) -> list[str]:
    """Look for the files of a recipe in the current folder; return a warning for each that is another one.

    Fields in ``replaced`` have a value from elsewhere. Raises UsageError for a file that is missing.
    """
    values = {name: value for name, value in recipe.values.items() if name not in replaced}
    needed = [*_named_files(values), *PLAYLIST_FILE.findall(values.get("playlist", ""))]
    if recipe.settings_track and "settings_track" not in replaced:
        needed.append(("settings_track", recipe.settings_track))
    warnings = []
    for field, name in needed:
        if not Path(name).is_file():
            digest = f" (sha256 {recipe.digests[name]}...)" if name in recipe.digests else ""
            raise UsageError(f"the recipe of {recipe.path} needs the file {name}{digest} for "
                             f"{settings_fields.flag_name(field)}, which is not in the current folder")
        warnings += _compare(recipe, name, name)
    weights = models.get(values["model"]).weights_path() if "model" in values else None
    return warnings + (_compare(recipe, recipe.weights, str(weights)) if weights else [])


def _compare(recipe: Recipe, name: str, path: str) -> list[str]:
    expected, found = recipe.digests.get(name), _digest(path)
    if not expected or not found or expected == found:
        return []
    return [f"{Path(path).name} is not the file of the recipe of {recipe.path}: its sha256 begins with {found}, not "
            f"{expected}"]


def _named_files(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, file) for each setting that names one."""
    for field in FILES:
        if (path := values.get(field)) and path not in NO_FILES.get(field, ()):
            yield field, path


def _name(path: str) -> str:
    """The name that the recipe has for a file; of an address or a filter graph little is left."""
    if path.startswith("lavfi:"):
        return "lavfi"
    return Path(re.split("[?#]", path)[0] if "://" in path else path).name


def _digest(path: str) -> str:
    """The first digits of the SHA-256 of a file; "" where there is none to read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_DIGITS]
    except (OSError, ValueError):
        return ""


def _check(name: str, value: Any) -> Any:
    """The value of a setting, if it is legal."""
    if not isinstance(value, str | bool | int | float):
        raise SettingsError(f"{settings_fields.flag(FIELDS[name])} is no text, number or switch")
    if isinstance(value, str) and not value.isprintable():
        raise SettingsError(f"{settings_fields.flag(FIELDS[name])} is {value!r}, which has control characters")
    if name not in FILES:  # for which _check_name is stricter
        settings_fields.check_strangers(FIELDS[name], value)
    return settings_fields.convert(FIELDS[name], value)


def _check_name(name: str) -> str:
    """A file name, if it is without a folder and no special name of a source."""
    if name and (name != Path(name).name or "\\" in name or name == ".." or name.startswith("lavfi:")
                 or len(name) > MAX_NAME):
        raise SettingsError(f"it names the file {name!r}, but a recipe names files without folders")
    return name


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key, "")
    return value if isinstance(value, str) and value.isprintable() and len(value) <= MAX_NAME else ""
