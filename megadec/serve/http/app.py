"""The service over HTTP, in OpenAI's shapes: a Starlette application.

What Starlette lacks is written here: a limit for bodies, and work that ends with the client that wanted it.
"""

from functools import partial
from pathlib import Path

from megadec.common.errors import needs_extra
from megadec.serve.access import Access
from megadec.serve.bodies.generate import ChatBody, CompletionBody
from megadec.serve.http.classify import classify
from megadec.serve.http.errors import failed, refused, unrouted
from megadec.serve.http.generate import generate
from megadec.serve.http.middleware import AccessMiddleware, RequestMiddleware
from megadec.serve.http.openapi import document
from megadec.serve.http.tokens import detokenize, embed, tokenize
from megadec.serve.limits import RequestError
from megadec.serve.service import Service

with needs_extra("starlette", "serve"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Route

PAGE_FILE = Path(__file__).parents[1] / "page.html"
# The page is one file: nothing is loaded from elsewhere, and nothing is sent elsewhere.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:",
    "x-content-type-options": "nosniff",
}


def build_app(service: Service, access: Access) -> Starlette:
    """The application in front of `service`."""
    cors = Middleware(CORSMiddleware, allow_origins=access.origins, allow_methods=["*"], allow_headers=["*"])
    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(RequestMiddleware, service=service, paths=PATHS),
            Middleware(AccessMiddleware, access=access),
            *([cors] if access.origins else []),  # what a browser has to be told
        ],
        exception_handlers={RequestError: refused, HTTPException: unrouted, Exception: failed},
    )
    app.state.service = service
    return app


async def models(request: Request) -> Response:
    """All models."""
    return JSONResponse({"object": "list", "data": request.app.state.service.models()})


async def model(request: Request) -> Response:
    """One model."""
    name = request.path_params["name"]
    for found in request.app.state.service.models():
        if found["id"] == name:
            return JSONResponse(found)
    raise RequestError(f"the model {name!r} is not served here", 404, "model_not_found")


async def health(request: Request) -> Response:
    """200 while requests are taken on and a token can be made."""
    service = request.app.state.service
    status, reason = 200, "ok"
    try:
        await service.check()
    except RequestError as error:
        status, reason = error.status, "stopping" if error.code == "shutting_down" else error.message
    shown = {"status": reason, "running": service.scheduler.running, "waiting": service.scheduler.waiting}
    return JSONResponse(shown, status)


async def metrics(request: Request) -> Response:
    """Prometheus' text."""
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")


async def openapi(request: Request) -> Response:
    """The routes and what they take and give."""
    return JSONResponse(document())


async def page(request: Request) -> Response:
    """The page for people."""
    return FileResponse(PAGE_FILE, headers=PAGE_HEADERS)


ROUTES = [
    Route("/v1/completions", partial(generate, kind=CompletionBody), methods=["POST"]),
    Route("/v1/chat/completions", partial(generate, kind=ChatBody), methods=["POST"]),
    Route("/v1/classify", classify, methods=["POST"]),
    Route("/v1/embeddings", embed, methods=["POST"]),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/v1/models", models),
    Route("/v1/models/{name}", model),
    Route("/openapi.json", openapi),
    Route("/healthz", health),
    Route("/metrics", metrics),
    Route("/", page),
]
PATHS = {route.path for route in ROUTES}
