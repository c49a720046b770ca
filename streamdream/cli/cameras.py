"""The command ``cameras``."""
from __future__ import annotations

import json
from collections.abc import Sequence

from streamdream.cli.argument_parser import Parser


def cameras_command(parser: Parser, argv: Sequence[str]) -> int:
    """list the cameras with their names and modes

    streamdream cameras
    streamdream live --source webcam:NAME --capture-size 1280x720 --capture-rate 60
    """
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse(argv)
    from streamdream.media.sources import camera_list

    rows = camera_list.list_cameras()
    if args.json:
        print(json.dumps({"cameras": [camera.as_json() for camera in rows],
                          "advice": "" if rows else camera_list.no_camera_hint()}))
        return 0
    for camera in rows:
        denied = "" if camera.allowed else ", permission denied: sudo usermod -aG video $USER, then log in again"
        print(f"webcam:{camera.index}  {camera.name}{denied}")
        for mode in camera.modes:
            print(f"    {mode}")
    if not rows:
        print(camera_list.no_camera_hint())
    return 0
