"""The allow-list of routes. Gradio adds many that this page does not need; any other route answers 404."""
from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

GET, POST, WEBSOCKET = ("GET", "HEAD"), ("POST",), ("WEBSOCKET",)
ALLOWED_ROUTES = {
    "/": GET, "/config": GET, "/theme.css": GET, "/favicon.ico": GET, "/manifest.json": GET, "/robots.txt": GET,
    "/assets/": GET, "/static/": GET,  # scripts and fonts of Gradio's page
    "/gradio_api/queue/join": POST, "/gradio_api/queue/data": GET,  # an event, and the stream of its answers
    "/gradio_api/cancel": POST, "/gradio_api/reset": POST,
    "/gradio_api/heartbeat/": GET,  # a session ends with it
    "/gradio_api/app_id": GET,  # after a restart of the server
    "/streamdream/": GET, "/healthz": GET, "/readyz": GET, "/live": WEBSOCKET, "/live/facts": GET, "/live/clip": GET,
    "/layers/": GET, "/channels/": GET, "/looks/": GET, "/results/": GET, "/uploads": POST,
    "/uploads/": (*GET, "PATCH"), "/examples/": POST, "/dreams": GET, "/dreams/": (*GET, "DELETE"),
}
"""Path -> methods. A path that ends in / also allows all paths that begin with it; "/" itself does not."""
PREFIXES = tuple(path for path in ALLOWED_ROUTES if path.endswith("/") and path != "/")


def is_allowed(scope: MutableMapping[str, Any]) -> bool:
    """Return whether the page needs the route of this HTTP or WebSocket ``scope``."""
    path, method = scope["path"], scope["method"] if scope["type"] == "http" else "WEBSOCKET"
    route = next((prefix for prefix in PREFIXES if path.startswith(prefix)), path)
    return method in ALLOWED_ROUTES.get(route, ())
