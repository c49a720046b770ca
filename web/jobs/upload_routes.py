"""The routes of uploads. A file comes in one request, or, so that a lost network costs little, in several.

    POST  /uploads?name=NAME             the body is the file      200  its facts
    POST  /uploads?name=NAME&size=BYTES  no body                   201  {token, offset: 0, size}
    PATCH /uploads/TOKEN                 the bytes from            200  {token, offset, size}, or, after the last byte,
                                         Upload-Offset on               its facts
    GET   /uploads/TOKEN                                           200  its facts, or {token, name, offset, size}
    GET   /uploads/TOKEN/file                                      200  the file, to be looked at
    POST  /examples/NAME                                           200  the facts of a copy that is the visitor's

Errors are ``{"error": one line}``. After 409, 429 and 503 an upload may go on later, after 409 at ``offset``.
"""
from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from streamdream.errors import UsageError

from ..core import strings
from . import examples
from .receptions import Busy, Interrupted, Reception, WrongOffset
from .upload import Upload

if TYPE_CHECKING:
    from .service import JobService

LATER = {Busy: 429, Interrupted: 503, WrongOffset: 409}
PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
HARMLESS = {**PRIVATE, "Content-Security-Policy": "sandbox"}
"""Headers of a visitor's file: what a browser takes it for runs nothing."""


def upload_routes(jobs_service: JobService) -> list[Route]:
    """The routes above; the files of a visitor are theirs only."""
    routes = _Routes(jobs_service)
    return [Route("/uploads", routes.receive, methods=["POST"]),
            Route("/uploads/{token}", routes.append, methods=["PATCH"]),
            Route("/uploads/{token}", routes.describe, methods=["GET"]),
            Route("/uploads/{token}/file", routes.show, methods=["GET"]),
            Route("/examples/{name}", routes.take_example, methods=["POST"])]


class _Routes:
    def __init__(self, jobs_service: JobService) -> None:
        self._jobs_service, self._uploads = jobs_service, jobs_service.uploads

    async def receive(self, request: Request) -> Response:
        name, size = request.query_params.get("name", ""), request.query_params.get("size")
        visitor, address = self._jobs_service.visitor_of(request), _address(request)
        if size is None:
            stated_bytes = _number(request.headers.get("content-length", "0"))
            return await self._answer(address, lambda: self._uploads.receive(
                name, request.stream(), stated_bytes, address, visitor))

        async def begin() -> dict[str, Any]:
            if not _number(size):
                raise UsageError(strings.text("upload.empty"))
            return _progress(await self._uploads.receptions.begin(name, _number(size), visitor, address))

        return await self._answer(address, begin, status=201)

    async def append(self, request: Request) -> Response:
        token, visitor = request.path_params["token"], self._jobs_service.visitor_of(request)
        reception = self._uploads.receptions.find(token, visitor)
        upload = await self._uploads.receptions.in_thread(self._uploads.find, token, visitor)
        if upload is not None:  # its answer was lost
            return JSONResponse(upload.as_json())
        if reception is None:
            return _gone()

        async def go_on() -> Upload | dict[str, Any]:
            offset = _number(request.headers.get("upload-offset", "0"))
            return await self._uploads.go_on(reception, request.stream(), offset) or _progress(reception)

        return await self._answer(_address(request), go_on, reception)

    async def _answer(self, address: str, work: Callable[[], Awaitable[Upload | dict[str, Any]]],
                      reception: Reception | None = None, status: int = 200) -> Response:
        """Answer with what ``work`` returns or raises; count and log each upload once, when it ends."""
        began, ended, refusal = time.perf_counter(), False, strings.text("upload.broke_off")
        answer: Upload | dict[str, Any] | None = None
        try:
            answer = await work()
            return JSONResponse(answer.as_json() if isinstance(answer, Upload) else answer, status)
        except (Busy, Interrupted, WrongOffset) as error:
            refusal, ended = str(error), reception is None
            offset = {} if reception is None else {"offset": reception.received_bytes}
            return JSONResponse({"error": refusal, **offset}, LATER[type(error)], {"Connection": "close"})
        except ClientDisconnect:
            ended = reception is None
            return JSONResponse({"error": refusal}, 400)
        except OSError as error:
            refusal, ended = f"the server cannot store it ({error.strerror})", True
            if reception is not None:
                await self._uploads.receptions.in_thread(self._uploads.receptions.drop, reception)
            return JSONResponse({"error": refusal}, 507, {"Connection": "close"})
        except UsageError as error:
            refusal, ended = str(error), True
            if reception is not None:
                await self._uploads.receptions.in_thread(self._uploads.receptions.drop, reception)
            # the rest of the body is not read, so the connection is closed
            return JSONResponse({"error": refusal}, 400, {"Connection": "close"})
        finally:
            if ended or isinstance(answer, Upload):
                seconds = time.perf_counter() - began + (reception.spent_seconds if reception else 0.0)
                self._uploads.note(answer if isinstance(answer, Upload) else None, address, seconds, refusal)

    def describe(self, request: Request) -> Response:
        token, visitor = request.path_params["token"], self._jobs_service.visitor_of(request)
        if upload := self._uploads.find(token, visitor):
            return JSONResponse(upload.as_json(), headers=PRIVATE)
        if reception := self._uploads.receptions.find(token, visitor):
            return JSONResponse(_progress(reception), headers=PRIVATE)
        return _gone()

    def show(self, request: Request) -> Response:
        upload = self._uploads.find(request.path_params["token"], self._jobs_service.visitor_of(request))
        if upload is None or not upload.path.exists():
            return _gone()
        return FileResponse(upload.path, media_type=upload.media_type, headers=HARMLESS)

    def take_example(self, request: Request) -> Response:
        example = examples.find(request.path_params["name"])
        if example is None:
            return _gone()
        address, began = _address(request), time.perf_counter()
        upload = self._uploads.copy(example.path, example.file_name, example.facts, address,
                                    self._jobs_service.visitor_of(request))
        self._uploads.note(upload, address, time.perf_counter() - began)
        return JSONResponse(upload.as_json(), headers=PRIVATE)


def _progress(reception: Reception) -> dict[str, Any]:
    return {"token": reception.token, "name": reception.name, "offset": reception.received_bytes,
            "size": reception.total_bytes}


def _gone() -> JSONResponse:
    return JSONResponse({"error": strings.text("upload.gone")}, 404)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _number(text: str) -> int:
    """Return 0 for what is no number of bytes."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0
