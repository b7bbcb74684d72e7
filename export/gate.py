"""A bundle's graphs in int8, with as few layers in higher precision as it takes to draw what fp32 draws."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from export.calibration import Calibration, Frames, feeds
from export.quantise import Layers, quantised
from jokr_rt.bundle import DIRECTIONS, FP32, INT8, Bundle, Graph, Quantisation, stored_file
from jokr_rt.engines import Engine, load_engine
from jokr_rt.errors import LayerCost, QuantisationError

if TYPE_CHECKING:
    from export.truth import Draw, PuppetTruth

ENGINE = "openvino"
QUANTISED = ("extractor", "generator")
"""The transformers take little of the time, and maps more than 8 bits."""

MIN_PSNR_DB = 42.0
MAX_TRUTH_LOSS_DB = 0.2
MAX_FLOAT_WORK = 0.5  # of the multiply-adds: beyond that int8 gains little over bf16
WORTH_TRYING = 0.01  # of them: what it takes for a layer that was left in floats to be tried without the others
_PEAK = 255.0

Layer = tuple[str, str]
"""Its graph, and its name in `export.quantise.Layers`."""

Errors = NDArray[np.float64]
"""Mean squared difference from what fp32 draws, levels^2, in each scene."""


@dataclass(frozen=True)
class _Scene:
    """Frames of one direction with what fp32 makes of each: the generator's heatmaps, and the image."""

    direction: str
    frames: Frames
    warped: list[NDArray[np.float32]]
    images: list[NDArray[np.uint8]]


@dataclass(frozen=True)
class _Verdict:
    """truth_loss_db: in the worse direction; None where it was not measured."""

    errors: Errors
    truth_loss_db: float | None

    @property
    def passed(self) -> bool:
        is_true = self.truth_loss_db is None or self.truth_loss_db <= MAX_TRUTH_LOSS_DB
        return is_true and worst_psnr_db(self.errors) >= MIN_PSNR_DB


class Quantiser:
    """For a bundle in a folder of its own, where the graphs in int8 are written.

    bundle: without int8. tell: told in words what is being done. Measured are frames held out of the calibration, and
    apart from them the bundle's samples: a spoiled calibration shows on these. Raises EngineError, EngineMissingError.
    """

    def __init__(self, bundle: Bundle, calibration: Calibration, tell: Callable[[str], None]) -> None:
        self._bundle, self._calibration, self._tell = bundle, calibration, tell
        (bundle.root / INT8).mkdir()
        self._looks = {direction: bundle.appearance(target) for direction, (_, target) in DIRECTIONS.items()}
        self._exact = load_engine(ENGINE, bundle, FP32)
        tell("drawing in fp32")
        samples = bundle.samples()
        stored = np.split(samples["extractor"]["frame"], [len(samples["stn-a2b"]["keypoints"])])
        self._scenes = [*self._play(dict(zip("ab", stored, strict=True))), *self._play(calibration.held_out)]
        given = feeds(self._exact, bundle, calibration.seen)
        self._layers: dict[str, Layers] = {}
        for name in QUANTISED:
            tell(f"quantising {name}")
            original = onnx.load(bundle.graph_path(name))
            self._layers[name] = Layers(original, quantised(original, given[name]))
        work = {(graph, name): count for graph, layers in self._layers.items() for name, count in layers.work().items()}
        self._work = {layer: count / sum(work.values()) for layer, count in work.items()}

    def run(self, truth: "PuppetTruth | None" = None) -> Bundle:
        """The bundle with int8. Raises QuantisationError where that would keep too little of the quality or the speed.

        truth: what frames of the puppets are compared with, too.
        """
        exact_db = truth and truth.psnr_db(self._drawer(self._exact))

        def judge(left: Collection[Layer]) -> _Verdict:
            self._tell(f"measuring int8 with {len(left)} layers in higher precision")
            engine = load_engine(ENGINE, self._write(left), INT8)
            errors = self._errors(engine)
            if not truth or not exact_db or worst_psnr_db(errors) < MIN_PSNR_DB:
                return _Verdict(errors, None)
            found_db = truth.psnr_db(self._drawer(engine))
            return _Verdict(errors, max(exact_db[direction] - found_db[direction] for direction in DIRECTIONS))

        left: list[Layer] = []
        gains: dict[Layer, Errors] = {}
        while not (verdict := judge(left)).passed:
            gains = gains or self._gains()
            more = self._next_to_leave(gains, left, verdict.errors)
            if not more:
                raise self._refusal(verdict, gains)
            left += more
        for layer in sorted(left, key=lambda layer: -self._work[layer]):  # some were needed only before others were
            fewer = [other for other in left if other != layer]
            if self._work[layer] >= WORTH_TRYING and (better := judge(fewer)).passed:
                left, verdict = fewer, better
        return replace(self._write(left), quantisation=self._record(verdict, left))

    def _play(self, frames: dict[str, Frames]) -> Iterator[_Scene]:
        for direction, (source, _) in DIRECTIONS.items():
            if len(shown := frames[source]):
                warped = [self._warp(direction, frame, self._exact, self._exact) for frame in shown]
                images = [self._paint(direction, heatmaps, self._exact) for heatmaps in warped]
                yield _Scene(direction, shown, warped, images)

    @staticmethod
    def _warp(direction: str, frame: NDArray[np.uint8], extractor: Engine, stn: Engine) -> NDArray[np.float32]:
        keypoints = extractor.run("extractor", {"frame": frame[None]})["keypoints"]
        return stn.run(f"stn-{direction}", {"keypoints": keypoints})["warped"]

    def _paint(self, direction: str, warped: NDArray[np.float32], generator: Engine) -> NDArray[np.uint8]:
        given = {"warped": warped, "appearance": self._looks[direction]}
        return np.asarray(generator.run("generator", given)["image"][0], np.uint8)

    def _errors(self, engine: Engine, only: str | None = None) -> Errors:
        """only: the one graph that `engine` runs; all others run in fp32."""
        extractor, stn, generator = (
            engine if only in (None, graph) else self._exact for graph in ("extractor", "stn", "generator")
        )
        found = []
        for scene in self._scenes:
            heatmaps = scene.warped
            if only != "generator":
                heatmaps = [self._warp(scene.direction, frame, extractor, stn) for frame in scene.frames]
            images = [self._paint(scene.direction, warped, generator) for warped in heatmaps]
            found.append(mean_squared(images, scene.images))
        return np.array(found)

    def _gains(self) -> dict[Layer, Errors]:
        """How much less the errors are with one layer in higher precision, the one that gains most first.

        Each is measured where only its own graph is in int8, so that the other's errors do not hide what it does.
        """
        gains: dict[Layer, Errors] = {}
        for graph in QUANTISED:
            before = self._errors(load_engine(ENGINE, self._write([], graph), INT8), graph)
            for name in self._layers[graph].names:
                self._tell(f"measuring layer {len(gains) + 1} of {len(self._work)}")
                candidate = self._write([(graph, name)], graph)
                after = self._errors(load_engine(ENGINE, candidate, INT8), graph)
                gains[graph, name] = np.maximum(before - after, 0)
        return dict(sorted(gains.items(), key=lambda item: -item[1].max()))

    def _next_to_leave(self, gains: dict[Layer, Errors], left: list[Layer], errors: Errors) -> list[Layer]:
        """As many more layers as it takes for the errors to come into bounds, if gains add up; one at least, if any is
        left that gains something and does not leave too much of the work in floats."""
        bound = _PEAK**2 / 10 ** (MIN_PSNR_DB / 10)
        chosen: list[Layer] = []
        for layer, gain in gains.items():
            work = sum(self._work[other] for other in (*left, *chosen, layer))
            if layer in left or not gain.any() or work > MAX_FLOAT_WORK:
                continue
            chosen.append(layer)
            errors = errors - gain
            if (errors <= bound).all():
                break
        return chosen

    def _write(self, left: Collection[Layer], only: str | None = None) -> Bundle:
        """The bundle with its graphs, or only one, in int8; without those layers. Other graphs stay as in fp32, and so
        does one of which no convolution remains."""
        graphs = list(self._bundle.graphs)
        for name in self._bundle.signatures:
            graph = self._bundle.graph(name)
            remains = any(work for layer, work in self._work.items() if layer[0] == name and layer not in left)
            if remains and only in (None, name):
                proto = self._layers[name].without({layer for where, layer in left if where == name})
                file = f"{INT8}/{name}.onnx"
                (self._bundle.root / file).write_bytes(proto.SerializeToString())
                stored = stored_file(self._bundle.root, file)
                graph = Graph(stored.file, stored.sha256, name=name, precision=INT8, opset=graph.opset)
            graphs.append(replace(graph, precision=INT8))
        return replace(self._bundle, graphs=tuple(graphs))

    def _drawer(self, engine: Engine) -> "Draw":
        return lambda direction, frame: self._paint(direction, self._warp(direction, frame, engine, engine), engine)

    def _record(self, verdict: _Verdict, left: Collection[Layer]) -> Quantisation:
        seen, held_out = self._calibration.seen, self._calibration.held_out
        return Quantisation(
            calibration=self._calibration.words,
            frames=sum(map(len, seen.values())),
            held_out=sum(map(len, held_out.values())),
            psnr_db=worst_psnr_db(verdict.errors),
            truth_loss_db=verdict.truth_loss_db,
            float_layers=[_label(layer) for layer in left],
        )

    def _refusal(self, verdict: _Verdict, gains: dict[Layer, Errors]) -> QuantisationError:
        what = f"keeps {worst_psnr_db(verdict.errors):.1f} dB of what fp32 draws, and {MIN_PSNR_DB:g} are needed"
        if verdict.truth_loss_db is not None:
            what = f"loses {verdict.truth_loss_db:.2f} dB against the truth, and {MAX_TRUTH_LOSS_DB:g} are allowed"
        costs = [LayerCost(_label(layer), self._work[layer], worst_psnr_db(gain)) for layer, gain in gains.items()]
        return QuantisationError(
            f"int8 {what}; with more than {MAX_FLOAT_WORK:.0%} of its work in higher precision it would gain little: "
            "calibrate on clips like those it is for, or export bf16",
            costs,
        )


def mean_squared(found: Collection[NDArray[np.uint8]], expected: Collection[NDArray[np.uint8]]) -> float:
    """Over all pixels and channels of all pictures, levels^2."""
    pairs = zip(found, expected, strict=True)
    return float(np.mean([np.square(one.astype(np.float64) - other).mean() for one, other in pairs]))


def worst_psnr_db(errors: Errors) -> float:
    """10 log10(255^2 / MSE) of the scene that differs most, at most 100 as `jokr evaluate` has it."""
    return min(100.0, 10 * float(np.log10(_PEAK**2 / max(errors.max(), 1e-9))))


def _label(layer: Layer) -> str:
    graph, name = layer
    return f"{graph} {name.removeprefix(f'{graph}.')}"
