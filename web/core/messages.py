"""The texts of errors for visitors, who have no shell: no commands, and settings as plain words."""
from __future__ import annotations

import re

from streamdream.errors import StreamdreamError, UnknownName

MAX_CHARACTERS = 240
"""Maximum length of a message."""
MAX_EXAMPLES = 6
COMMANDS = re.compile(r" \(all of them: [^)]*\)")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
"""Such as ``--field-height``."""


def visitor_message(error: StreamdreamError) -> str:
    """Return the text of an error for the page, at most MAX_CHARACTERS long and cut between words."""
    text = FLAG.sub(lambda flag: flag[1].replace("-", " "), COMMANDS.sub("", str(error)))
    if isinstance(error, UnknownName) and error.kind == "layer" and not error.close:
        text = f"there is no layer {error.name!r}; choose one such as {', '.join(error.examples[:MAX_EXAMPLES])}"
    if len(text) <= MAX_CHARACTERS:
        return text
    return text[:MAX_CHARACTERS - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"
