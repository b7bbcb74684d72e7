"""Pictures that say that there is no picture. The letters are built in, so that any machine can write them."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from jokr_rt.live.compose import Picture

_BACKGROUND, _INK = (24, 26, 32), (235, 235, 235)

# 5 x 7 dots from " " to "Z", five columns each, lowest bit at the top: the alphabet of character displays.
_COLUMNS = bytes.fromhex(
    "0000000000 00005f0000 0007000700 147f147f14 242a7f2a12 2313086462 3649562050 0005030000 001c224100 0041221c00"
    "2a1c7f1c2a 08083e0808 0050300000 0808080808 0060600000 2010080402 3e5149453e 00427f4000 4261514946 2141454b31"
    "1814127f10 2745454539 3c4a494930 0171090503 3649494936 064949291e 0036360000 0056360000 0814224100 1414141414"
    "0041221408 0201510906 324979413e 7e1111117e 7f49494936 3e41414122 7f4141221c 7f49494941 7f09090901 3e4149497a"
    "7f0808087f 00417f4100 2040413f01 7f08142241 7f40404040 7f020c027f 7f0408107f 3e4141413e 7f09090906 3e4151215e"
    "7f09192946 4649494931 01017f0101 3f4040403f 1f2040201f 3f4038403f 6314081463 0708700807 6151494543"
)
_FIRST, _LAST = ord(" "), ord("Z")


def slate(width: int, height: int, *lines: str) -> Picture:
    """A card (height, width, 3) with centred lines, as large as fit; in capitals, what is not ASCII as "?"."""
    card = np.full((height, width, 3), _BACKGROUND, np.uint8)
    longest = max(map(len, lines))
    scale = max(1, min(width // (6 * longest + 6), height // (10 * len(lines) + 10)))
    top = (height - 10 * scale * len(lines)) // 2
    for index, line in enumerate(lines):
        _write(card, line, top + index * 10 * scale, scale)
    return card


def banner(picture: Picture, words: str) -> Picture:
    """A copy of a picture (H, W, 3) with words on a dark bar along its lower edge."""
    marked = picture.copy()
    height, width = picture.shape[:2]
    scale = max(1, min(width // (6 * len(words) + 6), height // 90))
    top = max(0, height - 11 * scale)
    marked[top:] = marked[top:] // 5
    _write(marked, words, top + 2 * scale, scale)
    return marked


def _write(picture: Picture, words: str, top: int, scale: int) -> None:
    """Centred, in place; what does not fit is cut off."""
    dots = np.kron(np.concatenate([_glyph(letter) for letter in words.upper()], axis=1), np.ones((scale, scale), bool))
    left = max(0, (picture.shape[1] - dots.shape[1]) // 2)
    window = picture[top : top + dots.shape[0], left : left + dots.shape[1]]
    window[dots[: window.shape[0], : window.shape[1]]] = _INK


@cache
def _glyph(letter: str) -> NDArray[np.bool_]:
    """(7, 6) dots, the last column empty."""
    code = ord(letter) if _FIRST <= ord(letter) <= _LAST else ord("?")
    columns = np.frombuffer(_COLUMNS, np.uint8)[5 * (code - _FIRST) :][:5]
    dots = np.unpackbits(columns[None], axis=0, bitorder="little", count=7)
    return np.pad(dots.astype(bool), ((0, 0), (0, 1)))
