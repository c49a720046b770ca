"""A slow journey through the layers and channels of a network: a play list without a pause, each stop fading into the
next (Nordberg 2015 showed one layer after the other; here the shapes grow out of each other)."""
from __future__ import annotations

from streamdream import models
from streamdream.automation.automation import PlaylistEntry
from streamdream.errors import SettingsError
from streamdream.models import channel_sheets

CHANNELS_PER_BLOCK = 3
"""Stops at single channels, after the one at all channels of a block."""
MIN_STOP_SECONDS = 0.5


def journey_stops(model_name: str) -> list[str]:
    """Layers of every stop: up through the blocks of the network, and down. Raises UnknownName."""
    model = models.get(model_name)
    taps, named = model.taps(), channel_sheets.names(model_name)
    upward = []
    for block in model.blocks():
        channels = [channel for tap, channel in named if tap == block] or list(range(taps[block].channels))
        count = min(CHANNELS_PER_BLOCK, len(channels))
        chosen = [channels[(2 * number + 1) * len(channels) // (2 * count)] for number in range(count)]
        upward.append([block, *(f"{block}[{channel}]" for channel in chosen)])
    return [stop for block in upward for stop in block] + [stop for block in upward[-2:0:-1] for stop in block[:0:-1]]


def journey(model_name: str, seconds: float) -> tuple[PlaylistEntry, ...]:
    """A play list that goes through all stops in that time. Raises UnknownName or SettingsError."""
    stops = journey_stops(model_name)
    if seconds < MIN_STOP_SECONDS * len(stops):
        raise SettingsError(f"--journey {seconds:g}: {model_name} has {len(stops)} stops, which take "
                            f"{MIN_STOP_SECONDS * len(stops):g} seconds or more")
    return tuple(PlaylistEntry({"layers": stop, "channel": ""}, seconds / len(stops)) for stop in stops)
