"""HDR pictures for an SDR screen: from PQ or HLG in BT.2020 to BT.709."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

TRANSFERS = {16: "PQ", 18: "HLG"}
"""TransferCharacteristics of ITU-T H.273 that are HDR."""

REFERENCE_WHITE = 203.0  # nits of paper white in HDR (ITU-R BT.2408), which SDR shows as white
WHITE = 255 << 8  # what libswscale makes of full white, in 16 bits
KNEE = 0.8  # of reference white: what is darker keeps its light, what is brighter is rolled off below full white
_HLG_PEAK = 1000.0  # nits of the screen that HLG's system gamma of 1.2 is for (ITU-R BT.2100)
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # ITU-R BT.2087


def to_sdr(rgb: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint16 R'G'B' in BT.2020, white at WHITE -> (H, W, 3) uint8 in BT.709, for a screen of gamma 2.4.

    transfer: a key of `TRANSFERS`. The brightest channel of a pixel is rolled off, and the others scaled with it, so
    that the hue stays.
    """
    light = _linear(transfer)[rgb]  # 1 is reference white; of HLG, light in the scene
    if TRANSFERS[transfer] == "HLG":
        luma = np.maximum(light @ _LUMA, 1e-6)[..., None]
        light = light * luma**0.2 * np.float32(_HLG_PEAK / REFERENCE_WHITE)
    light = np.maximum(light @ _TO_BT709.T, 0)
    peak = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    above = np.maximum(peak - KNEE, 0)
    rolled = np.minimum(peak, KNEE) + (1 - KNEE) * (1 - np.exp(-above / (1 - KNEE)))
    shown = (light * (rolled / peak)) ** np.float32(1 / 2.4)
    return np.asarray(np.rint(shown * 255), np.uint8)


@cache
def _linear(transfer: int) -> NDArray[np.float32]:
    """Light of each of the 65,536 codes."""
    code = np.minimum(np.arange(65536) / WHITE, 1)
    if TRANSFERS[transfer] == "PQ":  # SMPTE ST 2084
        power = code ** (32 / 2523)
        light = (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
        return np.asarray(light * 10000 / REFERENCE_WHITE, np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # ITU-R BT.2100
    return np.asarray(np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12), np.float32)
