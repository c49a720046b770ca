"""What a command must leave behind when its input was hostile, and what it must not."""
from __future__ import annotations

import re
from pathlib import Path

from fuzz.children import End

KNOWN = re.compile(r"warning: |error: |licence: |[a-z_0-9]+: \S.*(ImageNet|lucid|2015)|.* fits( |$)")
"""Lines that streamdream writes to stderr, of which the last kinds are those of ``fetch``."""
MAX_RAW_LINES, MAX_WARNINGS, MAX_LINE = 1, 8, 2100
KEPT = "are kept; the same command"
"""An error that says this leaves a hidden folder to go on from."""


def faults(end: End, stderr: str, left: list[Path], whole: bool) -> list[str]:
    """What is wrong, in words; ``left`` are the paths, relative to the folder of outputs, that the command made, and
    ``whole`` says whether those without a hidden name could be read to their end.
    """
    found = [f"killed: {end.killed}"] if end.killed else [f"signal {-end.code}"] if end.code < 0 else []
    if not found and end.code not in (0, 1, 2):
        found.append(f"exit code {end.code}")
    lines = stderr.splitlines()
    if "Traceback" in stderr:
        found.append("traceback: " + next((line for line in reversed(lines) if line.strip()), ""))
    errors = [line for line in lines if line.startswith("error: ")]
    if not end.killed and end.code in (1, 2) and (len(errors) != 1 or lines[-1:] != errors):
        found.append(f"{len(errors)} error lines, or not the last")
    if end.code == 0 and errors:
        found.append("an error, and exit code 0")
    found += [f"unexpected: {line}" for line in errors if line.startswith("error: unexpected ")]
    raw = [line for line in lines if not KNOWN.match(line)]
    if len(raw) > MAX_RAW_LINES and "Traceback" not in stderr:
        found.append(f"{len(raw)} raw lines: {raw[0]}")
    if sum(line.startswith("warning: ") for line in lines) > MAX_WARNINGS:
        found.append("chatter")
    if any(len(line) > MAX_LINE for line in lines):
        found.append(f"a line of {max(map(len, lines))} characters")
    if any(not character.isprintable() for line in lines for character in line.replace("\t", "")):
        found.append("control characters")
    hidden = [path for path in left if any(part.startswith(".") for part in path.parts)]
    if not end.killed and end.code >= 0:  # a killed process cannot tidy up
        if hidden and not (end.code == 1 and KEPT in stderr):
            found.append(f"left behind: {hidden[0]}")
        if end.code != 0 and len(left) > len(hidden):
            found.append(f"an output of a failed run: {min(set(left) - set(hidden))}")
    return found if whole else [*found, "an output that is not whole"]


def is_whole(path: Path) -> bool:
    """Whether a video or picture can be decoded to its end without an error."""
    from PIL import Image

    from streamdream.media.pyav import open_av

    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            picture.load()
        return True
    with open_av(str(path)) as container:
        if not container.streams.video:
            return False
        pictures = 0
        for stream in container.streams:
            if stream.codec_context is not None:
                stream.codec_context.options = {"err_detect": "explode"}
        for packet in container.demux(container.streams.video[0]):
            pictures += len(packet.decode())
        return pictures > 0
