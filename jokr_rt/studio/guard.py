"""Who may talk to the studio: this machine, or who has the token; and no other site's page in either's name."""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import hdrs, web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach what listens on `host`, a name or an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Checks every request, and the one that opens a socket, before anything else looks at it.

    host: what the studio listens on. Elsewhere than on loopback there is a `token`, random, and `prefix` is
    "/TOKEN"; everything is below that. On loopback both are empty.
    """

    def __init__(self, host: str) -> None:
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        self.prefix = f"/{self.token}" if self.token else ""
        self._names = {host, socket.gethostname(), socket.getfqdn()} if self.token else set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers 403, without a word of why, what it does not let through."""
        if not (self._knows_host(request) and self._is_own_page(request) and self._has_token(request)):
            return web.Response(status=403, text="403: this studio is not for you\n")
        return await handler(request)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """For every answer: no other site may frame, read or feed it, and it loads nothing from elsewhere."""
        response.headers.update(_HEADERS)
        here = request.host if self._knows_host(request) else "'none'"
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
            f"connect-src 'self' ws://{here} wss://{here}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def _knows_host(self, request: web.Request) -> bool:
        """A name that an attacker may let point here (DNS rebinding) is not one of ours; an address cannot be let."""
        try:
            name = urlsplit(f"//{request.host}").hostname or ""
        except ValueError:
            return False
        if is_loopback(name):
            return True
        return bool(self.token) and (name in self._names or _is_address(name))

    def _is_own_page(self, request: web.Request) -> bool:
        """Browsers name the page's origin wherever it could do harm: with sockets, and with all but GET and HEAD."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            harmless = request.method in (hdrs.METH_GET, hdrs.METH_HEAD) and hdrs.UPGRADE not in request.headers
            is_typed = request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
            return harmless and (is_typed or request.headers.get("Sec-Fetch-Dest") == "document")  # a link is followed
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc == request.host

    def _has_token(self, request: web.Request) -> bool:
        given = request.path.split("/")[1]
        return not self.token or hmac.compare_digest(given.encode(), self.token.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
