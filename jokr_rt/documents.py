"""JSON files that people write and exchange: read with bounds, checked value by value, written whole or not at all."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jokr_rt.errors import InputError, OutputError, UsageError


def parse_document(text: str | bytes, kind: str, version: int, max_bytes: int) -> dict[str, Any]:
    """The object in a JSON text whose key `kind` is its version. Raises UsageError."""
    if len(text) > max_bytes:
        raise UsageError(f"larger than {max_bytes / 2**20:.3g} MiB")
    try:
        values = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}") from None
    if not isinstance(values, dict) or kind not in values:
        raise UsageError(f'not a document of this kind, which has "{kind}": {version}')
    if values[kind] != version or isinstance(values[kind], bool):
        raise UsageError(f"version {shown(values[kind])} of {kind}; this program reads {version}")
    return values


def read_text(path: str | Path, max_bytes: int) -> bytes:
    """What a file holds, and a byte more than `max_bytes` at most. Raises InputError."""
    try:
        with Path(path).open("rb") as file:
            return file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None


def check_output(path: str | Path, overwrite: bool) -> None:
    """Raises OutputError where a file could not, or must not, be written; before any work is done for it."""
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: already exists; choose another name, or replace it with --overwrite")


def write_text(path: str | Path, text: str, overwrite: bool) -> None:
    """Write a file, which is there only once it is whole. Raises OutputError."""
    check_output(path, overwrite)
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from None


def check_keys(values: object, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """The object itself. Raises UsageError where it is none, lacks a key or has one more."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be an object, not {shown(values)}")
    for key in values:
        if key not in required and key not in optional:
            known = ", ".join([*required, *optional])
            raise UsageError(f"{where} has an unknown key {shown(key)}; it may have {known}")
    for key in required:
        if key not in values:
            raise UsageError(f"{where} lacks {key}")
    return values


def check_list(values: object, where: str, longest: int) -> list[Any]:
    """The list itself. Raises UsageError where it is none, or has more than `longest` items."""
    if not isinstance(values, list):
        raise UsageError(f"{where} must be a list, not {shown(values)}")
    if len(values) > longest:
        raise UsageError(f"{where} has {len(values)} items; {longest} is the most")
    return values


def check_number(value: object, where: str, low: float, high: float) -> float:
    """As a float. Raises UsageError where it is no number from `low` to `high`; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"{where} must be a number from {low:g} to {high:g}, not {shown(value)}")
    return float(value)


def check_whole(value: object, where: str, low: int, high: int) -> int:
    """Raises UsageError where it is no whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{where} must be a whole number from {low} to {high}, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """For a message: at most a few words of it, in one line."""
    try:
        words = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a huge number"
    return words if len(words) <= 40 else f"{words[:37]}..."


def short_number(value: float) -> int | float:
    """The same number, as JSON has it shortest: whole ones without a point, as JavaScript writes them too."""
    return int(value) if value == int(value) else value


def _refuse_constant(name: str) -> None:
    raise UsageError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise UsageError(f"{shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return values
