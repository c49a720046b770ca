"""The connection to a Ray cluster: its address, what a chunk takes of it, and what its failures are called."""
from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from streamdream.errors import (
    ClusterLost,
    ClusterUnavailable,
    MissingPackage,
    StreamdreamError,
    UsageError,
    error_text,
)

RESOURCES = {"cpu": "CPU", "gpu": "GPU"}
ADDRESS = re.compile(r"ray://(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})")
CONNECT_SECONDS = 5.0
AMOUNT = re.compile(r"([\w-]+)=(\d+(?:\.\d+)?)")
AMOUNTS = re.compile(rf"{AMOUNT.pattern}(?:,{AMOUNT.pattern})*")
SERVER_FAILED = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""What Ray says where a process that it begins for a client does not come, or ends at once."""
MISSING = "--cluster needs Ray: pip install 'streamdream[ray]'"
_connecting = threading.Lock()
log = logging.getLogger(__name__)


def parse_resources(text: str) -> dict[str, float]:
    """``cpu=4,gpu=1`` -> {"CPU": 4.0, "GPU": 1.0}; other names are a cluster's own. Raises UsageError."""
    if text and not AMOUNTS.fullmatch(text):
        raise UsageError(f"--chunk-resources {text}: give amounts, as in cpu=4 or cpu=2,gpu=1")
    found = {RESOURCES.get(name.lower(), name): float(amount) for name, amount in AMOUNT.findall(text)}
    if 0 in found.values():
        raise UsageError(f"--chunk-resources {text}: an amount is above 0")
    return found


def describe_resources(resources: Mapping[str, float]) -> str:
    """{"CPU": 4.0} -> ``cpu=4``: as ``parse_resources`` reads it."""
    names = {value: name for name, value in RESOURCES.items()}
    return ",".join(f"{names.get(name, name)}={amount:g}" for name, amount in resources.items())


def check_address(address: str) -> None:
    """Raises MissingPackage without Ray, or UsageError for what is no address, or where nobody answers: Ray tries for
    half a minute.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingPackage(MISSING)
    if address == "auto":
        return
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"--cluster {address}: it is auto, or an address such as ray://head:10001")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(f"--cluster {address}: nobody answers there ({error_text(error)})") from None


def connect(address: str) -> Any:
    """Return the module ``ray``, connected. Raises MissingPackage, or UsageError when there is no such cluster."""
    with _connecting:
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # else a call after a lost connection starts a cluster here
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        try:
            import ray
        except ImportError:
            raise MissingPackage(MISSING) from None
        if ray.is_initialized():
            return ray
        check_address(address)
        log.info("connecting to the cluster %s", address)  # it takes seconds
        logging.getLogger("ray.util.client.logsclient").disabled = True  # it has a level of its own
        try:
            _initialize(ray, address)
        except ConnectionError as error:
            text = "no Ray cluster runs here; ray start --head begins one" if address == "auto" else one_line(error)
            hint = "; one with a token needs RAY_AUTH_MODE=token here, too" if "timeout" in text else ""
            raise ClusterUnavailable(f"--cluster {address}: {text}{hint}") from None
        except (OSError, ValueError, RuntimeError) as error:  # it has another version of Python or Ray
            raise UsageError(f"--cluster {address}: {one_line(error)}") from None
        return ray


def _initialize(ray: Any, address: str) -> None:
    """Connect, with a second try where the process that the cluster begins for a client did not come. Ray alone,
    without our code, failed so in one of five connections.
    """
    for may_retry in (True, False):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except (RuntimeError, ConnectionError) as error:
            if not may_retry or not any(text in str(error) for text in SERVER_FAILED):
                raise
            log.warning("the cluster has begun no process for this connection; trying again")
            with suppress(Exception):
                ray.shutdown()


@contextmanager
def failures_of(ray: Any) -> Iterator[None]:
    """A context that turns what Ray raises into StreamdreamError."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise StreamdreamError(str(cause) if isinstance(cause, StreamdreamError) else
                               f"unexpected {type(cause).__name__} on a node: {one_line(cause)}") from None
    except ray.exceptions.RayError as error:
        raise StreamdreamError(f"the cluster gave up: {one_line(error)}") from None
    except Exception as error:
        # not ConnectionError's own kinds, such as BrokenPipeError, which may be of who reads what is printed
        if type(error) is ConnectionError or type(error).__module__.partition(".")[0] == "grpc":
            raise ClusterLost("the connection to the cluster is lost") from None
        raise


def disconnect() -> None:
    """Forget a connection that is lost, so that the next ``connect`` makes a new one."""
    with _connecting:
        ray = sys.modules.get("ray")
        if ray is not None:
            with suppress(Exception):  # as nobody is there to say goodbye to
                ray.shutdown()


def one_line(error: BaseException) -> str:
    """The first line of what Ray says, after which pages about its logs may follow; the last one where that has it."""
    first, *others = str(error).strip().splitlines() or [type(error).__name__]
    return (others[-1] if others and first.endswith(":") else first).strip().rstrip(":.")
