"""Labels of texts."""

from megadec.common.errors import needs_extra
from megadec.serve.http.read import SLOT, read, unless_gone
from megadec.serve.requests import ClassifyBody

with needs_extra("starlette", "serve"):
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response


async def classify(request: Request) -> Response:
    """Label texts."""
    service = request.app.state.service
    wanted = await read(request, ClassifyBody)
    slot = request.scope[SLOT] = service.scheduler.admit()
    found = await unless_gone(request, service.classify(slot, wanted))
    data = [
        {"index": index, "label": max(one, key=one.__getitem__), "probabilities": dict(one), "truncated": truncated}
        for index, (one, truncated) in enumerate(found)
    ]
    return JSONResponse({"object": "list", "model": service.classifier.name, "data": data})
