"""Bundles with int8: what they are measured against, when they are refused, and what is kept of those before.

On the demo's model, for what an untrained one draws says little about quality.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import export.gate
from export import export_bundle
from export.gate import MIN_PSNR_DB, mean_squared, worst_psnr_db
from jokr_rt.bundle import DIRECTIONS, Bundle, open_bundle
from jokr_rt.engines import Engine, engine_module, load_engine
from jokr_rt.errors import InputError, OutputError, QuantisationError, UsageError
from jokr_rt.evaluation.puppets import PUPPETS, Walk, joints, render
from jokr_rt.parity import require_parity, verify_bundle
from jokr_rt.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests import clips
from tests.process import jokr
from tests.quantised import compile_graph, layer_precisions, write_clip
from tests.tiny import creature_frames

SHIPPED = Path(__file__).parent.parent / "examples" / "puppets.jokr"
NO_TORCH = "import sys\nsys.modules['torch'] = sys.modules['onnxscript'] = None"
SEEN, HELD_OUT = 12, 4  # of each clip below


def puppet_frames(name: str, size: int, count: int = SEEN + HELD_OUT, seed: int = 1) -> list[np.ndarray]:
    poses = joints(PUPPETS[name], Walk(count, seed, 1.0).motion())
    return [render(PUPPETS[name], pose, size)[0] for pose in poses]


@pytest.fixture(scope="module")
def puppet_clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of frames of either puppet, as large as the demo's model takes them."""
    root = tmp_path_factory.mktemp("clips")
    brown, blue = (write_clip(root / name, puppet_frames(name, 128)) for name in ("brown", "blue"))
    return brown, blue


@pytest.fixture(scope="module")
def demo_int8(puppet_clips: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo's bundle with int8, by a command that has neither PyTorch nor its exporter."""
    output = tmp_path_factory.mktemp("demo") / "int8.jokr"
    given = [arg for clip in puppet_clips for arg in ("--calibration", clip)]
    done = jokr("export", SHIPPED, "-o", output, "--precision", "int8", *given, "--json", prelude=NO_TORCH)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    bundle = open_bundle(output)
    told = json.loads(done.stdout)
    assert told["quantisation"] == bundle.to_json()["quantisation"]
    assert told["parity"] == bundle.to_json()["parity"]
    return bundle


def test_a_bundle_with_int8_is_measured_and_a_quarter_as_large(demo_int8: Bundle) -> None:
    assert demo_int8.precisions[:2] == ("fp32", "int8")
    for name in demo_int8.signatures:
        exact, small = demo_int8.graph_path(name), demo_int8.graph_path(name, "int8")
        if name.startswith("stn-"):
            assert small == exact
        else:
            assert small == demo_int8.root / "int8" / f"{name}.onnx"
            assert small.stat().st_size < 0.35 * exact.stat().st_size
    made = demo_int8.quantisation
    assert made is not None
    assert (made.calibration, made.frames, made.held_out) == ("brown and blue", 2 * SEEN, 2 * HELD_OUT)
    assert made.psnr_db >= MIN_PSNR_DB
    assert made.truth_loss_db is None
    figures = [figure for figure in demo_int8.parity if figure.precision == "int8"]
    assert len(figures) == 10
    assert {figure.engine for figure in figures} == {"openvino"}
    require_parity(figures)
    found = {figure.graph: figure.psnr_db for figure in verify_bundle(demo_int8, "openvino", ["int8"])}
    for figure in figures[-2:]:
        assert figure.graph in DIRECTIONS
        assert found[figure.graph] == pytest.approx(figure.psnr_db, abs=0.5)


def test_it_runs_in_8_bits_but_for_the_layers_it_names(demo_int8: Bundle) -> None:
    assert demo_int8.quantisation is not None
    left = demo_int8.quantisation.float_layers
    for name in ("extractor", "generator"):
        proto = onnx.load(demo_int8.graph_path(name, "int8"))
        weights = {tensor.name for tensor in proto.graph.initializer}
        floats = sum(f"{layer.replace(' ', '.', 1)}.weight" in weights for layer in left if layer.startswith(name))
        convolutions = layer_precisions(compile_graph(demo_int8.graph_path(name, "int8")), "Convolution")
        total = sum(node.op_type == "Conv" for node in proto.graph.node)
        assert convolutions == Counter({"u8": total - floats, "f32": floats})
    assert len(left) <= 8


def test_frames_that_the_export_has_not_seen_are_drawn_as_in_fp32(demo_int8: Bundle) -> None:
    exact, engine = (load_engine("openvino", demo_int8, precision) for precision in ("fp32", "int8"))
    for direction, name in (("a2b", "brown"), ("b2a", "blue")):
        frames = puppet_frames(name, 128, 8, seed=5)
        images = [[draw(demo_int8, one, direction, frame) for frame in frames] for one in (engine, exact)]
        psnr_db = worst_psnr_db(np.array([mean_squared(*images)]))
        assert MIN_PSNR_DB - 3 < psnr_db < 60  # 60: of what runs in bf16


def draw(bundle: Bundle, engine: Engine, direction: str, frame: np.ndarray) -> np.ndarray:
    keypoints = engine.run("extractor", {"frame": frame[None]})["keypoints"]
    warped = engine.run(f"stn-{direction}", {"keypoints": keypoints})["warped"]
    looks = bundle.appearance(DIRECTIONS[direction][1])
    return engine.run("generator", {"warped": warped, "appearance": looks})["image"][0]


def test_info_and_verify_show_int8(demo_int8: Bundle) -> None:
    done = jokr("info", demo_int8.root)
    assert demo_int8.quantisation is not None
    assert f"{demo_int8.quantisation.psnr_db:.1f} dB of what fp32 draws" in done.stdout
    for layer in demo_int8.quantisation.float_layers:
        assert layer in " ".join(done.stdout.split())
    done = jokr("verify", demo_int8.root, "--json")
    assert done.returncode == 0
    rows = json.loads(done.stdout)["parity"]
    assert {(row["engine"], row["precision"]) for row in rows} >= {("openvino", "int8"), ("onnxruntime", "fp32")}
    assert ("onnxruntime", "int8") not in {(row["engine"], row["precision"]) for row in rows}


SPOILED = {
    "black": lambda size, seed: np.zeros((size, size, 3), np.uint8),
    "grey": lambda size, seed: np.random.default_rng(seed).integers(96, 160, (size, size, 3), np.uint8),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_calibration_is_refused_with_what_each_layer_costs(tmp_path: Path, kind: str) -> None:
    """The frames held out of it are spoiled as well: what tells are the bundle's own."""
    frames = [SPOILED[kind](128, seed) for seed in range(SEEN + HELD_OUT)]
    clip = write_clip(tmp_path / "clip", frames)
    given = ("--precision", "int8", "--calibration", clip, "--calibration", clip)
    done = jokr("export", SHIPPED, "-o", tmp_path / "out.jokr", *given, prelude=NO_TORCH)
    assert (done.returncode, done.stdout) == (1, "")
    *table, error = done.stderr.splitlines()
    assert error.startswith("jokr: error: int8 keeps ")
    assert "dB of what fp32 draws, and 42 are needed" in error
    assert "calibrate on clips like those it is for" in error
    assert table[0].split()[0] == "layer"
    costs = [float(row.split()[-1]) for row in table[1:]]
    assert len(costs) > 22  # convolutions, and additions
    assert costs == sorted(costs)
    assert any(row.startswith("generator ") for row in table)
    assert any(row.startswith("extractor ") for row in table)
    assert list(tmp_path.iterdir()) == [clip]


@pytest.fixture(scope="module")
def calm_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, drawing faintly: what its 8 bits lose passes the gate."""
    checkpoint: Checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.model.generator.head.weight.data.mul_(0.015)
    path = tmp_path_factory.mktemp("calm") / "calm.safetensors"
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="module")
def calm_bundle(calm_checkpoint: Path) -> Bundle:
    """Made of it in one go, on its own reference frames, and compared with the puppets' truth."""
    output = calm_checkpoint.with_name("calm.jokr")
    told: list[str] = []
    bundle = export_bundle(calm_checkpoint, output, precisions=["int8", "fp32"], truth="puppets", progress=told.append)
    for words in ("drawing in fp32", "quantising extractor", "quantising generator", "comparing int8 with PyTorch"):
        assert words in told
    assert {path.name for path in output.parent.iterdir()} == {calm_checkpoint.name, output.name}
    return bundle


def test_a_checkpoint_calibrates_on_its_reference_frames(calm_bundle: Bundle) -> None:
    made = calm_bundle.quantisation
    assert made is not None
    assert (made.calibration, made.frames, made.held_out) == ("the checkpoint's reference frames", 2, 0)
    assert made.truth_loss_db is not None
    assert -1 < made.truth_loss_db <= export.gate.MAX_TRUTH_LOSS_DB
    assert made.float_layers == []
    require_parity(calm_bundle.parity)


def test_more_precisions_keep_those_that_are_there(calm_bundle: Bundle, tmp_path: Path) -> None:
    """In place, and with bf16 where this processor has it; where not, in one line."""
    output = tmp_path / "more.jokr"
    copy = export_bundle(calm_bundle.root, output, precisions=["fp32"])
    assert copy.precisions == calm_bundle.precisions == ("fp32", "int8")
    assert copy.parity == calm_bundle.parity
    assert copy.quantisation == calm_bundle.quantisation
    assert copy.graphs == calm_bundle.graphs
    if engine_module("openvino").lacks("bf16"):
        with pytest.raises(UsageError, match="bf16 cannot be measured here"):
            export_bundle(output, output, precisions=["bf16"], overwrite=True)
        return
    more = export_bundle(output, output, precisions=["bf16"], overwrite=True)
    assert more.precisions == ("fp32", "int8", "bf16")
    assert more.graphs == copy.graphs
    assert more.parity[: len(copy.parity)] == copy.parity
    figures = more.parity[len(copy.parity) :]
    assert {(figure.engine, figure.precision) for figure in figures} == {("openvino", "bf16")}
    assert all(figure.psnr_db is not None and figure.psnr_db > 40 for figure in figures[-2:])
    assert load_engine("openvino", more, "bf16").precision == "bf16"


def test_too_much_lost_against_the_truth_is_refused(
    calm_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound that nothing meets: all is tried that may be left in floats, and named."""
    monkeypatch.setattr(export.gate, "MAX_TRUTH_LOSS_DB", -50.0)
    monkeypatch.setattr(export.gate, "MAX_FLOAT_WORK", 0.01)
    monkeypatch.setattr(export.gate, "QUANTISED", ("generator",))  # for the test's sake: half the layers to try
    clip = write_clip(tmp_path / "clip", list(creature_frames(16, 64, seed=0)))
    with pytest.raises(QuantisationError, match=r"int8 loses -?0\.\d\d dB against the truth, and -50 are") as caught:
        export_bundle(
            calm_bundle.root, tmp_path / "x.jokr", precisions=["int8"], calibration=[clip, clip], truth="puppets"
        )
    assert {cost.layer.split()[0] for cost in caught.value.costs} == {"generator"}
    assert sum(cost.work for cost in caught.value.costs) == pytest.approx(1)
    assert not (tmp_path / "x.jokr").exists()


def test_options_that_cannot_be_meant(tiny_bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip", list(creature_frames(16, 64, seed=0)))
    short = clips.video(tmp_path / "short.mp4", 5)

    def refusal(kind: type[Exception], **options: object) -> str:
        with pytest.raises(kind) as caught:
            export_bundle(tiny_bundle, tmp_path / "out.jokr", **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out.jokr").exists()
        return str(caught.value)

    assert "unknown precision 'fp8'; choose from fp32, bf16, fp16, int8" in refusal(UsageError, precisions=["fp8"])
    assert "a bundle holds too few frames" in refusal(UsageError, precisions=["int8"])
    assert "graphs in fp16 are made from a checkpoint" in refusal(UsageError, precisions=["fp16"])
    assert "are for int8 alone" in refusal(UsageError, calibration=[clip, clip])
    assert "are for int8 alone" in refusal(UsageError, precisions=["fp32"], truth="puppets")
    assert "unknown truth 'cats'" in refusal(UsageError, precisions=["int8"], truth="cats")
    one = refusal(UsageError, precisions=["int8"], calibration=[clip])
    assert "two clips, one of A and one of B, not 1" in one
    assert "short.mp4: 5 frames; a calibration needs at least 16" in refusal(
        InputError, precisions=["int8"], calibration=[clip, short]
    )
    assert "none.mp4: there is no such file" in refusal(
        InputError, precisions=["int8"], calibration=[clip, tmp_path / "none.mp4"]
    )
    with pytest.raises(OutputError, match="exists; choose another name"):
        export_bundle(tiny_bundle, tiny_bundle, precisions=["fp32"])


def test_what_is_not_installed_is_named(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jokr"
    given = ("export", tiny_bundle, "-o", output, "--precision", "int8", "--calibration", "x", "--calibration", "y")
    for package in ("nncf", "onnx"):
        done = jokr(*given, prelude=f"import sys\nsys.modules[{package!r}] = None")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("jokr: error: int8 needs the extra int8 (")
        assert done.stderr.endswith("): pip install 'jokr-rt[int8]'\n")
        assert done.stderr.count("\n") == 1
    done = jokr("export", tiny_checkpoint, "-o", output, prelude=NO_TORCH)
    assert done.returncode == 1
    assert done.stderr.startswith("jokr: error: exporting a checkpoint needs the extra train (")
    assert done.stderr.endswith("): pip install 'jokr-rt[train]'\n")
    assert list(tmp_path.iterdir()) == []
