"""Other looks for a creature: its appearance read off any picture of it, in place of the one that a bundle holds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jokr_rt.config import ModelConfig
from jokr_rt.engines import Engine
from jokr_rt.retarget import Model


@dataclass(frozen=True)
class FixedLooks:
    """A model whose appearances are chosen: {"a": (1, 3, S/2, S/2) float32, "b": ...}."""

    config: ModelConfig
    domains: dict[str, str]
    looks: Mapping[str, NDArray[np.float32]]

    @classmethod
    def stored(cls, model: Model) -> "FixedLooks":
        """The model's own, read once: a checkpoint would choose them again and again."""
        return cls(model.config, model.domains, {domain: model.appearance(domain) for domain in "ab"})

    def appearance(self, domain: str) -> NDArray[np.float32]:
        return self.looks[domain]


def with_looks(model: Model, engine: Engine, domain: str, picture: NDArray[np.uint8]) -> FixedLooks:
    """The same model, in which the creature of domain "a" or "b" looks as in a picture.

    engine: the model's. picture: (size, size, 3) uint8, the creature before black, seen as in the clip that the model
    was trained on; `jokr_rt.video.read_picture` reads one. In another precision the appearance is another one, too.
    Raises EngineError.
    """
    (other,) = {"a", "b"} - {domain}
    found = engine.run("extractor", {"frame": picture[None]})["appearance"]
    return FixedLooks(model.config, model.domains, {other: model.appearance(other), domain: found})
