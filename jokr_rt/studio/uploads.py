"""A visitor's clip, as its bytes come in."""

import asyncio
from pathlib import Path

from aiohttp import web

from jokr_rt.errors import InputError
from jokr_rt.studio.limits import Limits


async def receive(request: web.Request, path: Path, limits: Limits) -> None:
    """Write the body of a request to a new file, whose name is ours. Raises InputError."""
    most = f"{limits.upload_bytes >> 20} MB" if limits.upload_bytes >= 1 << 20 else f"{limits.upload_bytes} bytes"
    too_large = InputError(f"the clip has more than {most}; make it smaller or cut it first")
    if (request.content_length or 0) > limits.upload_bytes:
        raise too_large
    size = 0
    try:
        with path.open("xb") as file:
            while chunk := await asyncio.wait_for(request.content.readany(), limits.silence_seconds):
                size += len(chunk)
                if size > limits.upload_bytes:
                    raise too_large
                await asyncio.to_thread(file.write, chunk)
    except asyncio.TimeoutError:
        raise InputError("the clip stopped coming in; try again") from None
    if size == 0:
        raise InputError("the clip is empty")
