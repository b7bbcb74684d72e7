"""A visitor's file, as its bytes come in."""

import asyncio
from pathlib import Path

from aiohttp import web

from jokr_rt.errors import InputError


async def receive(request: web.Request, path: Path, what: str, max_bytes: int, silence_seconds: float) -> None:
    """Write the body of a request to a new file, whose name is ours. Raises InputError.

    what: it is, for a person. silence_seconds: between two parts of it, at most.
    """
    most = f"{max_bytes >> 20} MB" if max_bytes >= 1 << 20 else f"{max_bytes} bytes"
    too_large = InputError(f"the {what} has more than {most}; make it smaller")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    size = 0
    try:
        with path.open("xb") as file:
            while chunk := await asyncio.wait_for(request.content.readany(), silence_seconds):
                size += len(chunk)
                if size > max_bytes:
                    raise too_large
                await asyncio.to_thread(file.write, chunk)
    except asyncio.TimeoutError:
        raise InputError(f"the {what} stopped coming in; try again") from None
    if size == 0:
        raise InputError(f"the {what} is empty")
