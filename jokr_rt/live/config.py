"""Several streams in one file.

    bundle = "cat-fox.jokr"            # these for all of them: names of `RUN_KEYS`
    watchdog = 10

    on-loss = "freeze"                 # the names of `LiveOptions`, for every stream that does not say otherwise

    [[stream]]
    name = "hall"
    input = "rtsp://camera/1"
    output = ["hall.mp4", "preview:8081"]

    [[stream]]
    name = "door"
    input = "rtsp://camera/2"
    output = "rtmp://server/live/door"
    on-loss = "slate"

Names are those of the command line, with - or _. Paths are relative to the working directory, as on the command line.
"""

import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from jokr_rt.errors import InputError, UsageError
from jokr_rt.live.options import LiveOptions
from jokr_rt.live.values import parse_rate, parse_seconds, parse_size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUN_KEYS = ("bundle", "engine", "precision", "target", "watchdog", "on_hang", "prometheus")
"""What is said once for all streams; see `jokr_rt.live.run_live`."""


@dataclass(frozen=True)
class LiveConfig:
    """What a file says. run: arguments of `run_live` but streams, as far as they are there."""

    streams: tuple[LiveOptions, ...]
    run: dict[str, Any] = field(default_factory=dict)


def read_config(path: str | Path) -> LiveConfig:
    """Raises InputError for a file that cannot be read, UsageError, with the stream's name, for what it says."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None
    streams = values.pop("stream", [])
    if not isinstance(streams, list) or not streams or not all(isinstance(each, dict) for each in streams):
        raise UsageError(f"{path}: needs a table [[stream]] for each stream")
    shared = _named(values, path, [*RUN_KEYS, *_option_names()])
    run = _converted(str(path), {key: shared.pop(key) for key in RUN_KEYS if key in shared})
    options = []
    for number, each in enumerate(streams, start=1):
        named = {"name": f"stream{number}", **shared, **_named(each, path, _option_names())}
        where = f"{path}: stream {named['name']}"
        options.append(_options(where, named))
    return LiveConfig(tuple(options), run)


def _option_names() -> list[str]:
    return [each.name for each in fields(LiveOptions)]


def _named(values: dict[str, Any], path: str | Path, known: Sequence[str]) -> dict[str, Any]:
    named = {key.replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise UsageError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return named


def _options(where: str, values: dict[str, Any]) -> LiveOptions:
    missing = [each.name for each in fields(LiveOptions) if each.default is MISSING and each.name not in values]
    if missing:
        raise UsageError(f"{where}: needs {' and '.join(missing)}")
    converted = _converted(where, values)
    try:
        return LiveOptions(**converted)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _converted(where: str, values: dict[str, Any]) -> dict[str, Any]:
    """Values as the options have them; raises UsageError where one cannot be."""
    try:
        return {key: _value(key, value) for key, value in values.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from None


_SECONDS = ("stall", "open", "learn", "keyframe_interval", "sink_stall", "watchdog")
_TEXTS = ("input", "appearance", "camera_format", "bundle", "engine", "precision", "on_hang")
_NUMBERS = ("retries", "sink_retries", "bitrate", "queue", "prometheus")


def _value(name: str, value: Any) -> Any:
    """What stands in the file as what the option is. Raises TypeError, ValueError."""
    if name in ("size", "camera_size"):
        return parse_size(value)
    if name in ("rate", "camera_rate"):
        return parse_rate(value)
    if name in _SECONDS:
        return parse_seconds(value)
    if name == "backoff":
        first, longest = value
        return parse_seconds(first), parse_seconds(longest)
    if name in ("output", "target"):
        each = (value,) if isinstance(value, str) else tuple(value)
        return tuple(_of_kind(name, one, str) for one in each)
    if name in _TEXTS:
        return _of_kind(name, value, str)
    if name in _NUMBERS:
        return _of_kind(name, value, int)
    (default,) = (each.default for each in fields(LiveOptions) if each.name == name)
    if type(default) is float and type(value) is int:
        value = float(value)
    return _of_kind(name, value, type(default))


def _of_kind(name: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{name.replace('_', '-')} cannot be {value!r}")
    return value
