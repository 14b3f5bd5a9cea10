"""What a server answers before a page is asked: to what is too long, and to addresses and names that there are not."""

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from kit.words import line_of

MOST_BYTES = 16_000_000  # of a request: more than the largest file that may be uploaded


class Bounded:
    """An application that reads no more of a request than so many bytes."""

    def __init__(self, app, most: int = MOST_BYTES):
        self.app, self.most = app, most

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told[:20]) > self.most:
            while (await receive()).get("more_body"):  # who is still sending would not hear the answer
                pass
            said = {"error": f"The request is too long; at most {self.most // 10**6} MB are read"}
            return await JSONResponse(said, 413)(scope, receive, send)
        left = self.most

        async def bounded() -> dict:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}  # it did not say how long it is

        return await self.app(scope, bounded, send)


async def told(request: Request, error: Exception) -> JSONResponse:
    """On one line, what no other answer was given to; the log of the server has all of it."""
    if isinstance(error, TypeError | LookupError) or type(error).__module__.startswith("gradio"):
        return JSONResponse({"error": f"{request.url.path[:80]} cannot answer this: {line_of(error)}"}, 400)
    return JSONResponse({"error": "This page has failed at what it was asked; its log says why"}, 500)


OPTIONS = {"middleware": [Middleware(Bounded)], "exception_handlers": {Exception: told}}  # of a FastAPI application
