"""Numbers and addresses that are none, as names of cameras, receivers and servers: one line, and no traceback."""
from __future__ import annotations

from pathlib import Path

import pytest
from support.live_sinks import live_sink
from support.unruly_server import running_server

from streamdream.errors import SinkError, SourceError
from streamdream.media.sources.camera_list import find_camera
from streamdream.models import download


@pytest.mark.parametrize("name", ["²", "9" * 5000, "9" * 12])
def test_a_camera_with_a_number_that_is_none_is_not_found(name: str) -> None:
    with pytest.raises(SourceError, match="no camera is called"):
        find_camera(name)


@pytest.mark.parametrize("address", ["rtmp://[", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:x", "udp://[::1"])
def test_a_receiver_at_an_address_that_is_none_cannot_be_reached(address: str) -> None:
    with pytest.raises(SinkError, match="cannot be reached"):
        live_sink(address)


def test_a_redirect_to_an_address_that_is_none_is_a_failed_download(tmp_path: Path) -> None:
    with running_server() as server:
        server.manners["/w"] = "to http://["
        with pytest.raises(download.DownloadError, match="makes no sense"):
            download.download(server.url + "/w", tmp_path / "part", lambda done, total: None)
