"""The limits of a visitor. Those that an operator chooses are in ``streamdream.settings.WebSettings``.

An address is one IPv4 address or one IPv6 network of 64 bits; a visitor is one page that is open.
"""
from __future__ import annotations

# --- connections and requests -----------------------------------------------------------------------------------------

MAX_CONNECTIONS = 1024
"""Open connections of all addresses; ``connections_per_address`` is an option."""
HEADERS_SECONDS = 10.0
"""Timeout of the headers, from the start of a connection or of its next request."""
REQUEST_WAIT_SECONDS = 5.0
"""How long a request of an address with too many open requests waits for one of them to end."""
MAX_BODY_BYTES, MAX_LOGIN_BYTES = 8_000_000, 10_000
"""Maximum size of a body that is no upload, and of the login form."""
BODY_TIMEOUT_SECONDS, BODY_SECONDS = 15.0, 60.0
"""Maximum time without a byte of a body, and for the whole body."""
MAX_PATH_PART_BYTES = 255
"""Bytes between two slashes of a path; no file name is longer."""
MAX_EVENT_BYTES, MAX_EVENT_ITEMS = 2_000_000, 1000
"""Size of an event of the page, which may contain a drawn mask; brackets, braces and commas in it."""

# --- logins -----------------------------------------------------------------------------------------------------------

MAX_LOGINS_PER_ADDRESS, MAX_LOGINS_WAITING = 3, 8
"""Password checks of one address: one runs, two wait. Waiting checks of all addresses, about 0.1 s each."""
LOGIN_PAUSE_SECONDS = 1.0
"""Wait of an address after a wrong password; other addresses do not wait."""

# --- live -------------------------------------------------------------------------------------------------------------

LIVE_MAXIMA = {"steps": 6, "warmup_steps": 30, "octaves": 6}
"""Maxima of settings, so that no visitor occupies the device for long."""
MAX_LAYERS, MAX_LAYER_PARTS = 6, 64
"""Different layers that are dreamed at once; parts of their text, such as mixed5[12]:-0.5."""
MAX_JPEG_BYTES, MAX_LIVE_PIXELS = 2_000_000, 1920 * 1080
"""Size of an uploaded frame."""
MAX_LIVE_RATE = 75.0
"""Maximum rate of decoded frames per second."""
MAX_BAD_FRAMES = 8
"""Consecutive invalid frames after which the session ends."""
HELLO_SECONDS = 5.0
"""Timeout of the first message of a live socket."""
MAX_MESSAGES_PER_SECOND, MAX_MESSAGE_BURST = 500.0, 500
"""A visitor who sends more is disconnected; a page sends at most 60 frames and 60 changes per second."""
MAX_FRAMES_PER_SECOND, MAX_FRAME_BURST = 500.0, 1000
"""Rate of pings, pongs and fragments of the WebSocket protocol."""
MAX_MESSAGE_CHARACTERS, MAX_SETTING_CHARACTERS = 8192, 1000
"""Size of a text message, and of one value in it."""
MAX_SEARCH_CHARACTERS = 100
"""Length of the words that channels are searched by."""
SETTING_CHECKS_PER_SECOND = 60.0
"""Maximum rate of checks of settings; changes in between are merged."""
MAX_QUEUE = 100
"""Maximum number of visitors who wait for a live session."""
RECONNECT_SECONDS = 4.0
"""How long a session waits for its visitor to reconnect."""

# --- files ------------------------------------------------------------------------------------------------------------

MAX_UPLOADS, MAX_UPLOADS_PER_ADDRESS = 8, 3
"""Maximum number of files being received or inspected."""
UPLOAD_SECONDS, SHARED_UPLOAD_SECONDS = 600.0, 20.0
"""Maximum time of an upload; and the time after which the slowest one may be ended for another address."""
MAX_PARTIAL_UPLOADS, MAX_PARTIAL_UPLOADS_PER_ADDRESS, PARTIAL_UPLOAD_SECONDS = 16, 6, 600.0
"""Maximum number of files that are here in part, of all and of one address, and how long one waits to go on."""
MAX_FILES, MAX_FILES_PER_VISITOR = 256, 16
MAX_UNCLAIMED, UNCLAIMED_SECONDS = 16, 120.0
"""Maximum number of unclaimed files of one address, and how long they are kept."""
MAX_TOTAL_FACTOR = 20
"""Maximum size of all files, as a multiple of that of a single one."""
ADDRESS_SHARE = 4
"""One address may have at most one ``ADDRESS_SHARE``-th of all files and bytes."""
MAX_STREAMS, MAX_VIDEO_RATE, MAX_PACKETS_PER_SECOND = 12, 120, 1000
"""Limits of a video. Packets are those of all streams: audio of 10 ms per packet and video at 120 Hz make 220."""
MAX_PICTURE_FACTOR = 6
"""A picture may have so many times the pixels of a video's frame, since it is scaled down at once: phones have 12 to 50
million."""
MAX_STORED_PIXELS = 1920 * 1080
"""Larger pictures are scaled down, as their dream would take minutes."""
INSPECTION_CPU_SECONDS, INSPECTION_BYTES = 20, 1 << 30
"""Limits of the process that inspects a file."""

# --- jobs -------------------------------------------------------------------------------------------------------------

JOB_MAXIMA = {"steps": 40, "warmup_steps": 100, "octaves": 8, "jitter": 128}
"""Maxima of settings for a video or a picture."""
MAX_FIELD_HEIGHT = 1080
"""Lines; also when the field is as large as the input."""
MAX_VIDEOS, MAX_STILLS = 16, 32
"""Waiting and running jobs of all visitors."""
MAX_JOBS_PER_ADDRESS, MAX_JOBS_PER_VISITOR = 4, 2
"""Waiting and running jobs of one address or visitor, in each of the two queues."""
VIDEO_SECONDS, STILL_SECONDS = 3600.0, 300.0
"""A job ends after this time when another visitor waits."""
SHARED_VIDEO_SECONDS = 600.0
"""The same for a video when another address waits."""
CLUSTER_VIDEOS = 4
"""Videos that a cluster renders at once for one server."""
MAX_KEPT = 2000
"""Dreams of all visitors that are kept; the oldest of the address that holds most go."""
MAX_KEPT_PER_VISITOR = 100
"""Dreams of one visitor that are kept; the oldest go."""
EXPIRE_SECONDS = 1800.0
"""Uploads and results are kept for so long without ``--keep-hours``."""
MAX_VISITORS = 10_000
"""Maximum number of known visitors: their names come from the browser and may be invented."""
