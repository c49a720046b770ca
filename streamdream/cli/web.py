"""The command that serves the browser app."""
from __future__ import annotations

from collections.abc import Sequence

from streamdream import settings
from streamdream.cli.flags import Parser, add_settings, resolve
from streamdream.cli.show import say, show_log
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings


def web_command(parser: Parser, arguments: Sequence[str]) -> int:
    """dream in the browser: the camera live, videos, pictures

    streamdream web                                      http://127.0.0.1:7860, for this machine only
    streamdream web --host 0.0.0.0 --token new           for others, who get the link that is printed
    """
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    add_settings(parser, WebSettings, StreamSettings, DreamSettings, LiveSettings,
                 without=("seconds", "mirror", "loop", "guide", "style", "mask"))
    found = parser.parse(arguments)
    run = resolve(found)
    if found.print_config:
        print(settings.to_toml((run.web, run.stream, run.dream, run.live)), end="")
        return 0
    show_log(False)
    try:
        from streamdream_web.server import serve
        from streamdream_web.studio import Studio
    except ImportError:
        raise UsageError("the browser app is not installed here: pip install streamdream again") from None
    studio = Studio(run.web, run.dream, run.stream, run.live)
    say(f"streamdream is on http://{run.web.host}:{run.web.port}; Ctrl-C ends it")
    serve(run.web, studio)
    return 0
