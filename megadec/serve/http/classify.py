"""Labels of texts: vLLM's shape, with the probabilities by label and whether a text was cut beside it."""

import secrets
import time

from megadec.common.errors import needs_extra
from megadec.serve.bodies.texts import ClassifyBody
from megadec.serve.http.read import SLOT, read, unless_gone

with needs_extra("starlette", "serve"):
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response


async def classify(request: Request) -> Response:
    """Label texts."""
    service = request.app.state.service
    wanted = await read(request, ClassifyBody)
    slot = request.scope[SLOT] = service.scheduler.admit()
    found = await unless_gone(request, service.classify(slot, wanted))
    labels = service.classifier.classifier.labels
    data = [
        {
            "index": index,
            "label": max(one, key=one.__getitem__),
            "probs": [one[label] for label in labels],
            "num_classes": len(labels),
            "probabilities": dict(one),
            "truncated": truncated,
        }
        for index, (one, truncated) in enumerate(found)
    ]
    head = {"id": f"classify-{secrets.token_hex(12)}", "object": "list", "created": int(time.time())}
    return JSONResponse({**head, "model": service.classifier.name, "data": data})
