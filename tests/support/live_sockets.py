"""Live sockets without a browser: whose they are, and how a server refuses and closes them."""
from __future__ import annotations

from typing import Any

import pytest
from streamdream_web.auth import visitor_cookie
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.web_client import Client, Running


def cookie(letter: str) -> dict[str, Any]:
    """The headers of the browser of that visitor."""
    return {"additional_headers": {"Cookie": f"{visitor_cookie.COOKIE}={letter * 32}"}}


def close_code(client: Client) -> int:
    """The code with which the server closes the socket."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.hear()
    assert closed.value.rcvd
    return closed.value.rcvd.code


def refusal(web: Running, **headers: Any) -> Any:
    """The answer to the handshake of a new live socket."""
    with pytest.raises(InvalidStatus) as refused:
        Client(web, **headers)
    return refused.value.response
