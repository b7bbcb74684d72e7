"""A model that knows the truth: what it scores is known too, and so is what it scores with one thing made wrong."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS, Arrays
from jokr_rt.config import ModelConfig
from jokr_rt.evaluation.data import EvaluationData, puppet_data
from jokr_rt.evaluation.metrics import moved_by
from jokr_rt.evaluation.perform import render_heatmaps
from jokr_rt.evaluation.puppets import BROWN, FAMILIES, Family, Walk

SIZE = 64
CONFIG = ModelConfig(keypoints=10, size=SIZE, width=1 / 16, extractor_size=64)
SEEN = (0, 1, 2, 4, 5, 6, 7, 8, 10, 12)  # joints that are its keypoints; the others must be predicted
TWINS = {
    "brown": replace(BROWN, colour=(0.8, 0.5, 0.2), stripes=(0.5, 0.2, 0.1)),
    "blue": replace(
        BROWN,
        colour=(0.3, 0.5, 0.8),
        stripes=(0.7, 0.8, 0.9),
        degrees=20.0,
        scale=0.75,
        shift=(0.1, 0.06),
        background=1,
    ),
}
"""Of the same proportions, so that an affine map takes every joint of the one to the other's."""


def twins(family: str) -> Family:
    """The first creature of a family, and again in the second's place."""
    (name, puppet), (other, second) = FAMILIES[family].items()
    place = {field: getattr(second, field) for field in ("degrees", "scale", "shift", "mirrored", "background")}
    return {name: puppet, other: replace(puppet, **place)}


def twin_data(creatures: Family = TWINS, training: int = 40, held_out: int = 24) -> EvaluationData:
    walks = Walk(training, 0, 1.0), Walk(held_out, 5, 0.8), Walk(held_out, 6, 1.2)
    return puppet_data(SIZE, training=walks[0], test=walks[1], probe=walks[2], creatures=creatures)


class PerfectModel:
    """Model and engine in one. It recognises every frame of its data and draws the true one in the pose it is given.

    theta: the maps it predicts, the true ones unless given. seen: joints that are its keypoints. change: what becomes
    of a drawn frame. order: of the poses it draws: pose i as order[i].
    """

    name, precision = "perfect", "fp32"
    config = CONFIG

    def __init__(
        self,
        data: EvaluationData,
        theta: Mapping[str, NDArray[np.float64]] | None = None,
        seen: tuple[int, ...] = SEEN,
        change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda image: image,
        order: Callable[[int], int] = lambda index: index,
    ) -> None:
        assert data.truth is not None
        self.domains = {domain: each.name for domain, each in data.domains.items()}
        self.theta = theta or data.truth.theta
        self.change, self.order = change, order
        self.poses: dict[bytes, tuple[str, NDArray[np.float32]]] = {}
        self.images: dict[str, NDArray[np.uint8]] = {}
        self.heatmaps: dict[str, NDArray[np.float32]] = {}
        for domain, each in data.domains.items():
            clips = [clip for clip in (each.test, each.training, each.probe) if clip is not None]
            tracks = [np.asarray(clip.joints, np.float32)[:, seen] for clip in clips]
            for clip, track in zip(clips, tracks, strict=True):
                for frame, bare, pose in zip(clip.frames, clip.on_black, track, strict=True):
                    self.poses[frame.tobytes()] = self.poses[bare.tobytes()] = domain, pose
            self.images[domain] = np.concatenate([clip.on_black for clip in clips])
            self.heatmaps[domain] = render_heatmaps(np.concatenate(tracks), SIZE // 2)

    def appearance(self, domain: str) -> NDArray[np.float32]:
        return np.full((1, 3, SIZE // 2, SIZE // 2), "ab".index(domain), np.float32)

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        if graph == "extractor":
            domain, pose = self.poses[inputs["frame"][0].tobytes()]
            confidence = np.ones((1, len(pose)), np.float32)
            return {"keypoints": pose[None], "confidence": confidence, "appearance": self.appearance(domain)}
        if graph == "generator":
            domain = "ab"[int(inputs["appearance"][0, 0, 0, 0])]
            distances = ((self.heatmaps[domain] - inputs["warped"]) ** 2).sum(axis=(1, 2, 3))
            return {"image": self.change(self.images[domain][self.order(int(distances.argmin()))])[None]}
        theta = np.float32(self.theta[graph.removeprefix("stn-")])[None]
        moved = moved_by(theta, inputs["keypoints"])
        return {"theta": theta, "warped": render_heatmaps(np.float32(moved), SIZE // 2)}


def turned(data: EvaluationData, degrees: float) -> dict[str, NDArray[np.float64]]:
    """The true maps, turned further."""
    assert data.truth is not None
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    truth = data.truth.theta
    return {name: np.concatenate([turn @ truth[name][:, :2], truth[name][:, 2:]], axis=1) for name in DIRECTIONS}
