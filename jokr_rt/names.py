"""What clips are called before people: short names, and never one name for two clips."""

from itertools import zip_longest
from pathlib import Path

_PLAIN = "frames"  # a folder of this name says nothing of what is in it


def clip_name(path: Path) -> str:
    """The file's or the folder's: "cat" of cat.mp4, of the folder cat, of cat/frames and cat/%05d.png."""
    return _split(path)[0]


def clip_names(first: Path, second: Path) -> tuple[str, str]:
    """Names of two clips that differ.

    Where both have one `clip_name`, the nearest folders that differ come before it: "horse-walk" and "cow-walk" of
    horse/walk and cow/walk. Where there are none, a number comes after it.
    """
    (name, above), (other, other_above) = _split(first), _split(second)
    if name != other:
        return name, other
    for mine, theirs in zip_longest(above, other_above, fillvalue=""):
        if mine != theirs:
            return "-".join(filter(None, (mine, name))), "-".join(filter(None, (theirs, name)))
    return f"{name}-1", f"{name}-2"


def _split(path: Path) -> tuple[str, list[str]]:
    """The name, and those of the folders above, the nearest first."""
    path = path.absolute()
    if "%" in path.name and path.parent.name:  # the pattern of an image sequence
        path = path.parent
    name = path.stem if path.is_file() else path.name
    above = [folder.name for folder in path.parents]
    if name == _PLAIN and not path.is_file() and above[0]:
        name, *above = above
    return name, above
