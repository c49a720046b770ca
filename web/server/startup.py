"""Check settings and certificate, open the port, before the app is loaded, which takes seconds."""
from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re
import runpy
import socket
import ssl
import tempfile
from pathlib import Path
from urllib.parse import quote

from streamdream import models
from streamdream.errors import ModelError, UnknownName, UsageError
from streamdream.render import ray_connection
from streamdream.settings import Run, WebSettings

from ..auth import authentication, proxies
from ..core import kept_folder, response
from ..core.state import check_dream_settings
from . import metrics

TABS = ("live", "video", "picture", "dreams", "layers")
"""Modules of ``pages``."""
MAX_TERMS_BYTES = 100_000


def check(settings: WebSettings) -> WebSettings:
    """Return the settings as they will be used, with new tokens made. Raises MissingPackage, or UsageError: above all
    for settings that would let anybody in.
    """
    tokens = authentication.parse_tokens(settings.token or ("new" if settings.share else ""))
    authentication.check_names(tokens, authentication.parse_users(settings.auth))
    token = ",".join(f"{name}:{secret}" for name, secret in tokens.items())
    proxies.parse_networks(settings.trusted_proxies)
    response.parse_frame_ancestors(settings.frame_ancestors)
    if not (proxies.is_loopback(settings.host) or settings.auth or token):
        raise UsageError(f"--host {settings.host} opens the app to others; say who may log in: --token new, or --auth "
                         "user:hash")
    parse_tabs(settings.tabs)
    read_terms(settings.terms)
    _check_certificate(settings)
    kept_folder.check_folder(settings)
    if settings.shared_folder and "new" in re.split(r"[\s,:]+", settings.token) + ["new"] * settings.share:
        raise UsageError("--token new makes another secret for each server of a --shared-folder; give all the same one")
    if settings.cluster:
        ray_connection.check_address(settings.cluster)
    if settings.metrics_port:
        if settings.metrics_port == settings.port:
            raise UsageError(f"--port and --metrics-port are both {settings.port}; choose two different ports")
        metrics.check_port(settings.metrics_port, settings.metrics_host)
    return dataclasses.replace(settings, token=token, root_path=proxies.parse_root_path(settings.root_path),
                               keep_folder=kept_folder.default_folder(settings))


def check_dream(run: Run) -> None:
    """Check what all visitors start from, and where the server stores files. Raises UsageError."""
    model = models.get(run.stream.model)
    check_dream_settings(run.dream, model)
    _check_device(run.stream.device)
    try:
        model.check_weights()
    except ModelError as error:
        raise UsageError(f"--model {model.name}: {error}") from None
    for what, folder, flag in (("cache", os.environ.get("STREAMDREAM_CACHE", ""), "STREAMDREAM_CACHE"),
                               ("temporary", tempfile.gettempdir(), "TMPDIR")):
        if folder and not _is_writable(Path(folder).expanduser()):
            raise UsageError(f"the {what} folder {folder} cannot be written; {flag} names another folder")


def _check_device(device: str) -> None:
    """Raise UsageError for an NVIDIA GPU where PyTorch was built without; to import it takes seconds."""
    found = importlib.util.find_spec("torch") if device.startswith("cuda") else None
    if found is None or found.origin is None:
        return
    build = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    if build.get("cuda") is None and build.get("hip") is None:
        raise UsageError(f"--device {device} cannot be used: this PyTorch ({build['__version__']}) was built without "
                         "CUDA; streamdream doctor lists what is here")


def _is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, or the folder itself, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


def parse_tabs(text: str) -> list[str]:
    """``live, video`` -> the names of the tabs in their order. Raises UsageError."""
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in TABS:
            raise UnknownName("name in --tabs", name, TABS)
    if not names or len(names) > len({*names}):
        raise UsageError(f"--tabs {text}: name each tab once, as in {','.join(TABS)}")
    return names


def read_terms(path: str) -> str:
    """Return the text of the file, or "" if none is named. Raises UsageError."""
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_TERMS_BYTES + 1)
        if len(text) > MAX_TERMS_BYTES:
            raise UsageError(f"--terms {path} is larger than {MAX_TERMS_BYTES // 1000} KB")
        shown = text.decode().strip()
    except OSError as error:
        raise UsageError(f"--terms {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--terms {path} is no text in UTF-8") from None
    if not shown:
        raise UsageError(f"--terms {path} is empty")
    return shown


def _check_certificate(settings: WebSettings) -> None:
    if bool(settings.ssl_certfile) is not bool(settings.ssl_keyfile):
        raise UsageError("--ssl-certfile and --ssl-keyfile go together")
    for flag, path in (("--ssl-certfile", settings.ssl_certfile), ("--ssl-keyfile", settings.ssl_keyfile)):
        if path and not Path(path).is_file():
            raise UsageError(f"{flag} {path}: there is no such file")
    if not settings.ssl_certfile:
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password="")
    except OSError as error:  # as ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror
        raise UsageError(f"--ssl-certfile {settings.ssl_certfile} and --ssl-keyfile {settings.ssl_keyfile} are no "
                         f"certificate and its key, as PEM without a password: {reason}") from None


def open_port(settings: WebSettings) -> socket.socket:
    """Return a bound socket, so that its number is known and no other program has it. Raises UsageError."""
    with contextlib.ExitStack() as on_error:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                settings.host, settings.port, type=socket.SOCK_STREAM)[0]
            # asyncio sets TCP_NODELAY only where the protocol is named; without it answers wait 40 ms for an ACK
            listening = on_error.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError as error:
            raise UsageError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; --port chooses "
                             "another") from None
        on_error.pop_all()
    return listening


def links(settings: WebSettings, listening: socket.socket) -> list[str]:
    """Return the links that open the app: one for each token, with its name where there are several."""
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    name = socket.gethostname() if host in ("0.0.0.0", "::") else name
    return add_tokens(f"http{'s' if settings.ssl_certfile else ''}://{name}:{port}", settings)


def add_tokens(url: str, settings: WebSettings) -> list[str]:
    """Return ``url`` as ``links`` does."""
    tokens = authentication.parse_tokens(settings.token)
    by_name = {name: f"{url}/?token={quote(secret, safe='')}" for name, secret in tokens.items()}
    if len(by_name) > 1:
        return [f"{link} (for {name})" for name, link in by_name.items()]
    return list(by_name.values()) or [url]
