"""A refusal as OpenAI's API gives errors."""

from typing import Any

from megadec.common.errors import needs_extra
from megadec.serve.limits import RequestError

with needs_extra("starlette", "serve"):
    import anyio
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.types import Message, Receive, Scope, Send

# A client that is refused while it still sends its body sees the answer only if its sending does not fail: so much more
# is read and thrown away.
DRAINED_BYTES = 2**26
DRAIN_SECONDS = 5.0


class TooLarge(JSONResponse):
    """The refusal of a body, behind which a little more of it is read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, read on, end it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = DRAINED_BYTES
        message: Message = {"more_body": True}
        with anyio.move_on_after(DRAIN_SECONDS):
            while left > 0 and message.get("more_body"):
                message = await receive()
                left -= len(message.get("body", b""))
        await send({"type": "http.response.body", "body": b""})


async def refused(request: Request, error: Any) -> Response:
    """A RequestError as OpenAI's API gives errors."""
    if error.status == 413:
        return TooLarge(error.body(), error.status, {"connection": "close"})
    headers = {} if error.retry_after_seconds is None else {"retry-after": str(error.retry_after_seconds)}
    if error.status == 408:  # the rest of the body may still come, and is no request
        headers["connection"] = "close"
    return JSONResponse(error.body(), error.status, headers)


async def unrouted(request: Request, error: Any) -> Response:
    """What no route takes."""
    headers = error.headers or {}
    method = f"does not take {request.method}; it takes {headers.get('Allow')}"
    what = {404: "is no route of this server", 405: method}
    message = f"{request.url.path} {what.get(error.status_code, error.detail)}"
    answer = await refused(request, RequestError(message, error.status_code, "unknown_route"))
    answer.headers.update(headers)
    return answer


async def failed(request: Request, error: Exception) -> Response:
    """A defect, of which a client is told no details."""
    return await refused(request, RequestError("the server failed", 500, "internal_error"))
