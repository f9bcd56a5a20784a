"""A reverse proxy that serves the page below /timbre: python proxy.py ADDRESS PORT."""

import asyncio
import sys

import httpx
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

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

    async def forward_messages(socket: WebSocket) -> None:
        target = f"ws{address.rstrip('/').removeprefix('http')}/{socket.path_params['path']}"
        await socket.accept()
        async with websockets.connect(target) as server:

            async def answer() -> None:
                async for message in server:
                    send = socket.send_bytes if isinstance(message, bytes) else socket.send_text
                    await send(message)

            answers = asyncio.create_task(answer())
            while (message := await socket.receive())["type"] == "websocket.receive":
                await server.send(message.get("bytes") or message["text"])
            answers.cancel()

    pages = Route("/{path:path}", forward, methods=["GET", "HEAD", "POST"])
    return Starlette(routes=[WebSocketRoute(f"{PREFIX}/{{path:path}}", forward_messages), pages])


if __name__ == "__main__":
    uvicorn.run(make_proxy(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
