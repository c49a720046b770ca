"""The command that serves the browser app."""
from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

from streamdream import settings
from streamdream.cli.flags import Parser, add_settings, resolve
from streamdream.cli.live import LIVE_PRESET
from streamdream.cli.output import log_line
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings

SHORTEST_PASSWORD = 8


def web_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream in the browser: the camera live, videos, pictures

    streamdream web                                      http://127.0.0.1:7860, for this machine only
    streamdream web --host 0.0.0.0 --token new           for others, who get the link that is printed
    streamdream web --hash                               a password's hash, for --auth user:hash
    """
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    add_settings(
        parser,
        WebSettings,
        StreamSettings,
        DreamSettings,
        LiveSettings,
        without=(
            "seconds",
            "mirror",
            "rotate_source",
            "crop",
            "capture_size",
            "capture_rate",
            "loop",
            "guide",
            "style",
            "mask",
        ),
    )
    parser.add_argument("--hash", action="store_true", help="ask for a password, print its hash for --auth, and stop")
    parser.add_argument("--revoke", metavar="NAME", help="put that user, or token of that name, out of all servers of "
                        "this account, until there is another password or secret; 'all': everybody has to log in "
                        "again; and stop")
    args = parser.parse(argv)
    if args.hash:
        return _print_hash()
    if args.revoke:
        return _revoke(args.revoke)
    run = resolve(args, LIVE_PRESET)
    if args.print_config:
        print(settings.to_toml((run.web, run.stream, run.dream, run.live)), end="")
        return 0
    log_line(f"{run.stream.model} → the browser: starting")  # Gradio takes seconds to load
    try:
        from streamdream_web.core.state import AppState
        from streamdream_web.server import app
    except ImportError as error:
        raise UsageError(f"the browser app is not whole here ({error}): pip install streamdream again") from None
    web = app.check(run.web)
    app_state = AppState(web, run.dream, run.stream, run.live)
    if {run.stream.backend, run.stream.device, run.stream.precision} != {"auto"}:
        app_state.load()  # what was asked for by name may not be here; whatever is chosen by itself is
    app.serve(web, app_state,
                 lambda link: log_line(f"streamdream is on {link} ; Ctrl-C ends it"), debug=args.debug)
    return 0


def _print_hash() -> int:
    from streamdream_web.auth import passwords

    if sys.stdin.isatty():
        password = getpass.getpass("password: ")
        if password != getpass.getpass("once more: "):
            raise UsageError("these are two different passwords")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < SHORTEST_PASSWORD:
        raise UsageError(f"a password has {SHORTEST_PASSWORD} signs or more")
    print(passwords.hash_password(password))
    return 0


def _revoke(name: str) -> int:
    from streamdream_web.auth.revocations import EVERYBODY, Revocations, default_path

    revocations = Revocations(default_path(), keep_in_memory=False)
    if name == EVERYBODY:
        revocations.end_sessions(EVERYBODY)
        log_line("everybody has to log in again")
    else:
        revocations.revoke(name)
        log_line(f"{name} is out; another password or secret under that name lets in again")
    return 0
