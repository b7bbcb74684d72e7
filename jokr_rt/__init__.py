"""JOKR-RT: make one creature move like another, from video to video.

    from jokr_rt import Retargeter, open_bundle, read_video, write_video

Importing this is cheap: PyAV and an inference engine are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jokr_rt.bundle import Bundle, open_bundle
    from jokr_rt.errors import JokrError
    from jokr_rt.frame import Frame
    from jokr_rt.retarget import Retargeter
    from jokr_rt.video import read_video, write_video

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "jokr_rt.bundle",
    "Frame": "jokr_rt.frame",
    "JokrError": "jokr_rt.errors",
    "Retargeter": "jokr_rt.retarget",
    "open_bundle": "jokr_rt.bundle",
    "read_video": "jokr_rt.video",
    "write_video": "jokr_rt.video",
}

__all__ = ["Bundle", "Frame", "JokrError", "Retargeter", "__version__", "open_bundle", "read_video", "write_video"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
