"""Whether what a model sees is the creature that it knows: of anything else it draws something, too."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS, Bundle

FRAMES = 8  # whose mean is judged
FAMILIAR = 0.5  # of the confidence in the frames that a bundle holds
"""The demo's puppets reach 0.79 before other backgrounds, half hidden and at half their size, and about 1 as they are;
a real cat and a real fox 0.30, noise 0.08."""
NEARER = 1.5  # times as near to the other creature's colours as to the own ones
"""The demo's puppets are 2.5 times and more as near to their own as to the other's."""


class Familiarity:
    """Judges the frames of one stream by those that a bundle holds of the creature that moves.

    doubt: what is wrong with the last `FRAMES` frames, in words that can follow a name; empty where nothing is, and
    before there were so many.
    """

    def __init__(self, bundle: Bundle, direction: str) -> None:
        self._names = [bundle.domains[domain] for domain in DIRECTIONS[direction]]
        known = bundle.samples()
        seen, half = known["extractor"], len(known["stn-a2b"]["keypoints"])  # those of a come first
        self._usual = float(seen["confidence"].mean())
        colours = [_colours(*pair) for pair in zip(seen["frame"], seen["keypoints"], strict=True)]
        groups = {"a": np.stack(colours[:half]), "b": np.stack(colours[half:])}
        self._own, self._other = (groups[domain] for domain in DIRECTIONS[direction])
        self._confidences: deque[float] = deque(maxlen=FRAMES)
        self._distances: deque[tuple[float, float]] = deque(maxlen=FRAMES)
        self.doubt = ""

    def see(
        self, keypoints: NDArray[np.float32], confidence: NDArray[np.float32], rgb: NDArray[np.uint8] | None = None
    ) -> bool:
        """Take a frame into account: keypoints (K, 2), their confidence (K,), and the picture (S, S, 3) if it is there.

        Returns whether there is a doubt now that there was not before.
        """
        before = self.doubt
        self._confidences.append(float(confidence.mean()))
        if rgb is not None:
            found = _colours(rgb, keypoints)
            own, other = (float(np.abs(group - found).mean(axis=(1, 2)).min()) for group in (self._own, self._other))
            self._distances.append((own, other))
        self.doubt = self._judge() if len(self._confidences) == FRAMES else ""
        return bool(self.doubt) and not before

    def _judge(self) -> str:
        source, target = self._names
        found = float(np.mean(self._confidences))
        if found < FAMILIAR * self._usual:
            return (
                f"does not look like {source}: its keypoints are found with a confidence of {found:.2f}, where "
                f"{self._usual:.2f} is usual; is it the right clip for this model, and are masks needed (--masks)?"
            )
        if len(self._distances) == FRAMES:
            own, other = np.mean(self._distances, axis=0)
            if own > NEARER * other:
                return f"looks like {target} rather than {source}; is it the other --direction that you want?"
        return ""


def familiarity(model: object, direction: str) -> Familiarity | None:
    """For one stream of a bundle; None for a checkpoint, or a model in other looks, which hold no frames."""
    return Familiarity(model, direction) if isinstance(model, Bundle) else None


def _colours(rgb: NDArray[np.uint8], keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K, 3): of the pixel at each keypoint, and its neighbours."""
    size = len(rgb)
    columns, rows = np.clip(((keypoints + 1) * size / 2).astype(int), 1, size - 2).T
    near = [rgb[rows + down, columns + across] for down in (-1, 0, 1) for across in (-1, 0, 1)]
    return np.asarray(np.mean(near, axis=0), np.float32)
