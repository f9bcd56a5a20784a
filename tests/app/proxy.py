"""A reverse proxy that serves the page below /timbre: python proxy.py ADDRESS PORT."""

import sys

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

PREFIX = "/timbre"


def make_proxy(address: str) -> Starlette:
    client = httpx.AsyncClient(timeout=None)

    async def forward(request: Request) -> Response:
        path = request.url.path
        if not path.startswith(f"{PREFIX}/"):
            return Response(f"not below {PREFIX}: {path}", 404)
        query = f"?{request.url.query}" if request.url.query else ""
        sent = client.build_request(
            request.method,
            f"{address.rstrip('/')}{path[len(PREFIX) :]}{query}",
            headers=request.headers.raw,
            content=await request.body(),
        )
        answer = await client.send(sent, stream=True)
        headers = {
            key: value for key, value in answer.headers.items() if key != "transfer-encoding"
        }
        return StreamingResponse(answer.aiter_raw(), answer.status_code, headers)

    return Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "HEAD", "POST"])])


if __name__ == "__main__":
    uvicorn.run(make_proxy(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
