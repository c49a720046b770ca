"""The command ``web``."""
from __future__ import annotations

import gc
import getpass
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from streamdream import settings
from streamdream.cli import signals
from streamdream.cli.argument_parser import Parser, add_settings, resolve
from streamdream.cli.live import LIVE_PRESET
from streamdream.cli.output import log_line
from streamdream.errors import StreamdreamError, UsageError
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings

MIN_PASSWORD_LENGTH = 8


def web_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream in the browser: the camera live, videos, pictures

    streamdream web                                      http://127.0.0.1:7860, this machine only
    streamdream web --host 0.0.0.0 --token new           other machines, by the link that it prints
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
    parser.add_argument("--revoke", metavar="NAME", help="revoke that user or named token on all servers of this "
                        "account, or of --shared-folder, until its password or secret is changed; 'all': end all "
                        "logins; and stop")
    args = parser.parse(argv)
    if args.hash:
        return _print_hash()
    run = resolve(args, LIVE_PRESET)
    if args.revoke:
        return _revoke(args.revoke, run.web)
    if args.print_config:
        print(settings.to_toml((run.web, run.stream, run.dream, run.live)), end="")
        return 0
    if run.web.log == "json":
        return _serve_with_json_log(run, args.debug)
    _serve(run, args.debug, log_line)
    return 0


def _serve_with_json_log(run: settings.Run, debug: bool) -> int:
    """Serve with every line on stderr as JSON, including the first ones, errors and signals."""
    with _explain_import_error():
        from streamdream_web.server import logs
    logs.configure_logging(run.web.log, debug)
    log = logging.getLogger("streamdream")
    try:
        _serve(run, debug, log.info)
    except signals.SignalReceived as received:
        log.info("%s", received)
        return received.exit_code
    except StreamdreamError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def _serve(run: settings.Run, debug: bool, report: Callable[[str], object]) -> None:
    """Serve until a signal comes; ``report`` gets each line for the user.

    Settings are checked before Gradio and PyTorch are loaded, which takes seconds.
    """
    with _explain_import_error():
        from streamdream_web.server import logs, startup
    web = startup.check(run.web)
    with startup.open_port(web) as listening:
        startup.check_dream(run)
        report(f"{run.stream.model} → the browser: starting")
        gc.disable()  # an eighth of the time until ready; the end of the warm-up enables it
        with _explain_import_error():
            from streamdream_web.core.state import AppState
        with closing(AppState(web, run.dream, run.stream, run.live)) as app_state:
            if {run.stream.backend, run.stream.device, run.stream.precision} != {"auto"}:
                app_state.load()  # fails now if the requested backend or device is not available
            with _explain_import_error():
                from streamdream_web.server import app
            logs.configure_logging(web.log, debug)
            number = app.serve(web, app_state, listening,
                               lambda link: report(f"streamdream is on {link} ; Ctrl-C ends it"))
    if number is not None:
        raise signals.SignalReceived(number)


@contextmanager
def _explain_import_error() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UsageError(f"the browser app is incomplete ({error}): reinstall streamdream with pip") from None


def _print_hash() -> int:
    from streamdream_web.auth import passwords

    if sys.stdin.isatty():
        password = getpass.getpass("password: ")
        if password != getpass.getpass("repeat the password: "):
            raise UsageError("the passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < MIN_PASSWORD_LENGTH:
        raise UsageError(f"a password must have at least {MIN_PASSWORD_LENGTH} characters")
    print(passwords.hash_password(password))
    return 0


def _revoke(name: str, web: WebSettings) -> int:
    from streamdream_web.auth.revocations import EVERYBODY, Revocations, path_of
    from streamdream_web.core.kept_folder import is_ours

    if web.shared_folder and not is_ours(Path(web.shared_folder)):
        raise UsageError(f"--shared-folder {web.shared_folder}: no server uses that folder")
    revocations = Revocations(path_of(web), keep_in_memory=False)
    if name == EVERYBODY:
        revocations.end_sessions(EVERYBODY)
        log_line("all logins are ended")
    else:
        revocations.revoke(name)
        log_line(f"{name} is revoked; a new password or secret under that name gives access again")
    return 0
