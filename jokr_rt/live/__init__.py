"""Live: a camera or stream in, the other creature out, for hours.

    from jokr_rt.live import LiveOptions, run_live

    run_live("cat-fox.jokr", LiveOptions("rtsp://camera/1", ("fox.mp4", "preview")), watchdog=10)

Importing this is cheap: what it offers is loaded when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jokr_rt.live.controls import Controls
    from jokr_rt.live.options import LiveOptions
    from jokr_rt.live.session import Observer, run_live

_HOMES = {
    "Controls": "jokr_rt.live.controls",
    "LiveOptions": "jokr_rt.live.options",
    "Observer": "jokr_rt.live.session",
    "run_live": "jokr_rt.live.session",
}

__all__ = ["Controls", "LiveOptions", "Observer", "run_live"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
