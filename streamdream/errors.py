"""The exceptions of streamdream.

    StreamdreamError            a run that failed; the CLI prints one line and exits 1
    ├── SourceError             the input cannot be opened or read
    ├── SinkError               the output cannot be written (full disk, refused by the encoder)
    │   ├── NameTaken           another program made a file of the output's name; ours has a number
    │   └── Closed              the user has closed the window
    ├── ModelError              weights are missing, damaged or not the expected ones
    ├── EngineError             an engine could not be built, or does not compute what it should
    ├── MissingPackage          an optional package or system library is absent; the text holds the install command
    └── UsageError              the user's mistake; the CLI exits 2
        ├── SettingsError       a value that is out of range, or of the wrong kind
        │   └── FieldTooSmall   the picture is too small for a layer
        └── UnknownName         a name that no registry holds; the text shows the close ones
"""
from __future__ import annotations

import difflib
from collections.abc import Iterable


class StreamdreamError(Exception):
    """Base of all errors; ``str(error)`` is one line that helps."""

    exit_code = 1


class SourceError(StreamdreamError):
    """The input cannot be opened or read."""


class SinkError(StreamdreamError):
    """The output cannot be written."""


class NameTaken(SinkError):
    """Another program made a file of the output's name meanwhile; what was written here has a numbered name."""


class Closed(SinkError):
    """The user has closed the window: the end of a live run, not a fault."""


class ModelError(StreamdreamError):
    """Weights are missing, damaged or not the expected ones."""


class EngineError(StreamdreamError):
    """An engine could not be built, or does not compute what it should."""


class MissingPackage(StreamdreamError):
    """An optional package or a system library is absent."""


class UsageError(StreamdreamError):
    """A mistake of the user."""

    exit_code = 2


class ClusterUnavailable(UsageError):
    """There is no such cluster, or it does not answer."""


class ClusterLost(StreamdreamError):
    """The connection to the cluster broke off."""


class SettingsError(UsageError):
    """A setting's value is out of range or of the wrong kind."""


class FieldTooSmall(SettingsError):
    """The picture, or an octave of it, has fewer pixels than a layer needs."""


class UnknownName(UsageError):
    """A name that is not in a registry.

    ``kind`` is what the name stands for ("layer", "model"), ``known`` are the legal names, ``listing`` is the command
    that prints them where they are too many for one line, ``renamed`` is the new name of what had this one before.
    ``close`` are the legal names that resemble it, ``examples`` the best known ones.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], listing: str = "", renamed: str = "",
                 examples: Iterable[str] = ()) -> None:
        known = list(known)
        close = [renamed] if renamed else difflib.get_close_matches(name, known, n=4, cutoff=0.6)
        self.kind, self.name, self.close, self.examples = kind, name, close, list(examples) or known
        text = f"unknown {kind} {name!r}"
        if renamed:
            text += f"; its new name is {renamed}"
        elif close:
            text += f"; did you mean {', '.join(close)}?"
        if not close and (len(known) <= 12 or not listing):
            text += f"; known: {', '.join(known)}"
        if listing:
            text += f" (all of them: {listing})"
        super().__init__(text)


def error_text(error: BaseException) -> str:
    """The reason of an error of FFmpeg or the system, without its number."""
    return str(getattr(error, "strerror", None) or error).lower()
