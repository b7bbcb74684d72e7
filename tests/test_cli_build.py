"""`jokr build` and `jokr run --engine tensorrt`: what is printed where, with a GPU (doubles of it) and without."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from jokr_rt import read_video
from jokr_rt.cli import main
from jokr_rt.engines.tensorrt_cache import digest
from tests import clips
from tests.cuda_double import CudaDouble
from tests.process import assert_refused, jokr, jokr_on_terminal
from tests.tensorrt_double import Double, ParserFault

GRAPHS = ["extractor", "stn-a2b", "stn-b2a", "generator"]
NO_TENSORRT = "import sys\nsys.modules['tensorrt'] = None"
NO_GPU = f"""{NO_TENSORRT}
from cuda.bindings import driver
def find_none(flags):
    raise RuntimeError("libcuda.so.1: no such file\\nand more")
driver.cuInit = find_none"""
DOUBLES = """import pytest
from tests import cuda_double, tensorrt_double
patch = pytest.MonkeyPatch()
cuda, double = cuda_double.install(patch), tensorrt_double.install(patch)
double.enqueue = lambda stream, work: cuda.enqueue(stream, "TensorRT", work)"""
BUILDING = "tensorrt: building extractor, stn-a2b, stn-b2a, generator in fp32 for Double of a GPU: not built yet\n"
LOADED = "tensorrt 11.4.0.106 on Double of a GPU, sampler plugin\n"


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def states(bundle: Path, *args: str) -> list[tuple[str, bool, str]]:
    plans = told(invoke("build", bundle, "--dry-run", "--json", *args))["plans"]
    return [(plan["graph"], plan["would_build"], plan["reason"]) for plan in plans]


def test_a_dry_run_on_a_machine_without_anything(tiny_bundle: Path) -> None:
    done = jokr("build", tiny_bundle, "--dry-run", "--json", "--max-batch", "2", prelude=NO_GPU)
    assert done.returncode == 0
    missing = [
        "the package tensorrt cannot be imported (import of tensorrt halted; None in sys.modules): "
        "pip install 'jokr-rt[tensorrt]'",
        "no NVIDIA driver here (libcuda.so.1: no such file); install it from nvidia.com/drivers",
    ]
    assert done.stderr.splitlines() == [f"not known here: {words}" for words in missing]
    values = json.loads(done.stdout)
    assert values["unknown"] == missing
    assert (values["engine"], values["precision"]) == ("tensorrt", "fp32")
    assert values["options"] == {"sampler": "auto", "max_batch": 2, "workspace": 1024, "optimization_level": 3}
    assert [plan["graph"] for plan in values["plans"]] == GRAPHS
    for plan in values["plans"]:
        assert (plan["would_build"], plan["reason"], plan["digest"]) == (True, "not built yet", None)
        assert plan["file"] == str(tiny_bundle / "engines" / f"{plan['graph']}-fp32.plan")
        assert {part for part, value in plan["key"].items() if value is None} == {
            "TensorRT", "compute capability", "GPU", "driver",
        }  # fmt: skip
        assert plan["key"]["profile"] == "batch 1 to 2, tuned for 1"
        assert (len(plan["key"]["kernel"]) == 64) == plan["graph"].startswith("stn-")
    assert not (tiny_bundle / "engines").exists()


def test_a_dry_run_in_words(tiny_bundle: Path) -> None:
    done = jokr("build", tiny_bundle, "--dry-run", prelude=NO_GPU)
    lines = done.stdout.splitlines()
    for graph in GRAPHS:
        (line,) = [line for line in lines if line.startswith(f"{graph} ")]
        assert "would be built" in line
        assert "not built yet" in line
    values = dict(line.split("  ", 1) for line in lines if line.rstrip().endswith("  not known here"))
    assert [part for part in values if part not in GRAPHS] == ["TensorRT", "compute capability", "GPU", "driver"]
    assert done.stderr.count("not known here: ") == 2


def test_a_dry_run_knows_its_key_where_there_is_a_gpu(bundle_copy: Path, gpu: CudaDouble) -> None:
    before = told(invoke("build", bundle_copy, "--dry-run", "--json"))
    assert before["unknown"] == []
    assert [plan["digest"] for plan in before["plans"]] == [digest(plan["key"]) for plan in before["plans"]]
    assert len({plan["digest"] for plan in before["plans"]}) == 4
    after = told(invoke("build", bundle_copy, "--json"))
    assert [plan["key"] for plan in after["plans"]] == [plan["key"] for plan in before["plans"]]
    assert states(bundle_copy) == [(graph, False, "") for graph in GRAPHS]
    words = "workspace was 1024 MiB, is 64 MiB"
    assert states(bundle_copy, "--workspace", "64") == [(graph, True, words) for graph in GRAPHS]
    gpu.name = "NVIDIA L4"
    assert states(bundle_copy)[0] == ("extractor", True, "GPU was Double of a GPU, is NVIDIA L4")
    assert gpu.alive() == []


def test_a_build_says_what_it_did(bundle_copy: Path, gpu: CudaDouble) -> None:
    result = invoke("build", bundle_copy)
    assert (result.exit_code, result.stderr) == (0, BUILDING)
    for graph, sampler in zip(GRAPHS, ("none", "plugin", "plugin", "none"), strict=True):
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"{graph} ")]
        assert line.split()[1:4] == [f"engines/{graph}-fp32.plan", "built", "in"]
        assert f" {sampler} " in line
        assert "not built yet" in line
    again = invoke("build", bundle_copy)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout.count("was there") == 4
    assert gpu.alive() == []


def test_a_build_as_json(bundle_copy: Path, gpu: CudaDouble) -> None:
    options = ("--max-batch", "2", "--workspace", "64", "--optimization-level", "1", "--sampler", "native")
    values = told(invoke("build", bundle_copy, *options, "--json"))
    assert list(values) == ["bundle", "engine", "precision", "options", "plans"]
    assert values["options"] == {"sampler": "native", "max_batch": 2, "workspace": 64, "optimization_level": 1}
    for plan in values["plans"]:
        assert plan["bytes"] == Path(plan["file"]).stat().st_size
        assert (plan["built"], plan["reason"]) == (True, "not built yet")
        assert plan["seconds"] > 0
        assert "layers" not in plan
    assert [plan["sampler"] for plan in values["plans"]] == ["none", "native", "native", "none"]


def test_the_layers_of_an_engine(bundle_copy: Path, gpu: CudaDouble) -> None:
    values = told(invoke("build", bundle_copy, "--inspect", "--json"))
    layers = {plan["graph"]: [layer["LayerType"] for layer in plan["layers"]] for plan in values["plans"]}
    assert layers["stn-a2b"].count("PluginV3") == 1
    assert "Convolution" in layers["generator"]
    shown = invoke("build", bundle_copy, "--inspect").stdout
    assert shown.count("PluginV3") == 2
    assert shown.count("layers of ") == 4


def test_a_run_builds_once_and_takes_what_was_built(
    bundle_copy: Path, gpu: CudaDouble, tensorrt_double: Double, tmp_path: Path
) -> None:
    source = clips.video(tmp_path / "in.mp4", 5)
    run = ("run", bundle_copy, source, "-o", tmp_path / "out.mp4", "--engine", "tensorrt", "--overwrite", "--json")
    line = "direction a2b (cat2fox), engine tensorrt, precision fp32, mode throughput\n"
    first = invoke(*run)
    assert first.stderr == BUILDING + LOADED + line
    values = told(first)
    assert (values["engine"], values["precision"], values["frames"]) == ("tensorrt", "fp32", 5)
    assert list(values["stages"]) == ["read", "frame", "write"]
    assert len(list(read_video(tmp_path / "out.mp4"))) == 5
    assert invoke(*run).stderr == LOADED + line
    assert gpu.alive() == []

    # What a run takes is what was built, with the options of that build.
    told(invoke("build", bundle_copy, "--max-batch", "2", "--sampler", "native", "--json"))
    tensorrt_double.calls.clear()
    assert invoke(*run).stderr == LOADED.replace("plugin", "native") + line
    assert "Builder" not in {call.name for call in tensorrt_double.calls}
    assert gpu.alive() == []


def test_half_precision_is_preferred_where_the_bundle_has_it(
    bundle_copy: Path, gpu: CudaDouble, tmp_path: Path
) -> None:
    """Which graphs are in float16 is the exporter's: here they are called so."""
    manifest = bundle_copy / "manifest.json"
    values = json.loads(manifest.read_text())
    values["graphs"] += [graph | {"precision": "fp16"} for graph in values["graphs"]]
    manifest.write_text(json.dumps(values))
    source, output = clips.video(tmp_path / "in.mp4", 2), tmp_path / "out.mp4"
    run = ("run", bundle_copy, source, "-o", output, "--engine", "tensorrt", "--overwrite")
    result = invoke(*run)
    line = "direction a2b (cat2fox), engine tensorrt, precision fp16, mode throughput\n"
    assert (result.exit_code, result.stderr) == (0, BUILDING.replace("fp32", "fp16") + LOADED + line)
    assert sorted(path.stem for path in (bundle_copy / "engines").glob("*.plan")) == sorted(f"{g}-fp16" for g in GRAPHS)
    assert invoke(*run, "--precision", "fp32").stderr == BUILDING + LOADED + line.replace("fp16", "fp32")
    values = told(invoke("build", bundle_copy, "--dry-run", "--json"))
    assert (values["precision"], values["plans"][0]["key"]["precision"]) == ("fp16", "fp16")
    assert not any(plan["would_build"] for plan in values["plans"])


def test_a_run_says_why_it_builds_again(bundle_copy: Path, gpu: CudaDouble, tmp_path: Path) -> None:
    told(invoke("build", bundle_copy, "--max-batch", "2", "--json"))
    gpu.version = 12090
    source = clips.video(tmp_path / "in.mp4", 2)
    result = invoke("run", bundle_copy, source, "-o", tmp_path / "out.mp4", "--engine", "tensorrt")
    assert result.stderr.splitlines()[0] == BUILDING.replace("not built yet\n", "driver was CUDA 13.0, is CUDA 12.9")
    values = told(invoke("build", bundle_copy, "--max-batch", "2", "--dry-run", "--json"))
    assert [plan["would_build"] for plan in values["plans"]] == [False] * 4  # the options are still those of the build


def test_every_command_frees_the_device(bundle_copy: Path, gpu: CudaDouble, tmp_path: Path) -> None:
    source = clips.video(tmp_path / "in.mp4", 3)
    assert invoke("verify", bundle_copy, "--engine", "tensorrt").exit_code == 0
    assert gpu.alive() == []
    gpu.fail("cuGraphLaunch", "CUDA_ERROR_ILLEGAL_ADDRESS", after=1)
    result = invoke("run", bundle_copy, source, "-o", tmp_path / "out.mp4", "--engine", "tensorrt")
    kept = f"the first 1 frames are kept in {tmp_path / 'out.mp4.part'}"
    assert_refused(result, 1, f"jokr: error: cuGraphLaunch failed: CUDA_ERROR_ILLEGAL_ADDRESS; {kept}")
    assert gpu.alive() == []


def test_what_cannot_be_meant(tiny_bundle: Path) -> None:
    for args, words in (
        (("--engine", "openvino"), "engine 'openvino' has nothing to build; leave --engine out, or take tensorrt"),
        (("--sampler", "fused"), "unknown sampler 'fused'; choose auto, plugin, native"),
        (("--max-batch", "0"), "max batch must be a whole number from 1 to 65535, not 0"),
        (("--optimization-level", "6"), "optimization level must be a whole number from 0 to 5, not 6"),
        (("--precision", "int8"), "engine tensorrt runs fp16 and fp32, not 'int8'"),
        (("--precision", "fp16"), "has fp32, not fp16; `jokr export --precision fp16` adds it"),
        (("--inspect", "--dry-run"), "--dry-run builds nothing; leave one of them out"),
    ):
        assert_refused(invoke("build", tiny_bundle, *args), 2, words)


def test_what_is_missing_is_said_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    source = clips.video(tmp_path / "in.mp4", 2)
    run = ("run", tiny_bundle, source, "-o", tmp_path / "out.mp4", "--engine", "tensorrt")
    for args in (("build", tiny_bundle), run, ("verify", tiny_bundle, "--engine", "tensorrt")):
        done = jokr(*args, prelude=NO_TENSORRT)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "jokr: error: engine tensorrt is not installed: pip install 'jokr-rt[tensorrt]'\n"


def test_no_gpu_is_said_in_one_line(tiny_bundle: Path, gpu: CudaDouble, tmp_path: Path) -> None:
    source = clips.video(tmp_path / "in.mp4", 2)
    run = ("run", tiny_bundle, source, "-o", tmp_path / "out.mp4", "--engine", "tensorrt")
    for args in (("build", tiny_bundle), run, ("verify", tiny_bundle, "--engine", "tensorrt")):
        gpu.fail("cuInit", "CUDA_ERROR_NO_DEVICE")
        result = invoke(*args)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            "jokr: error: no NVIDIA GPU 0 here (cuInit failed: CUDA_ERROR_NO_DEVICE); see nvidia-smi\n"
        )


def test_a_parser_error_is_one_line(bundle_copy: Path, gpu: CudaDouble, tensorrt_double: Double) -> None:
    tensorrt_double.parser = [ParserFault("Unsupported\npadding", "/conv1", "Conv")]
    result = invoke("build", bundle_copy)
    assert_refused(result, 1, "tensorrt: extractor cannot be parsed: Conv '/conv1': Unsupported padding")
    assert result.stdout == ""


def test_progress_is_for_a_terminal(bundle_copy: Path) -> None:
    """stderr is a real (pseudo) terminal here; the tests above show that a file gets none of it."""
    code, out, shown = jokr_on_terminal("build", bundle_copy, "--json", columns=150, prelude=DOUBLES)
    assert code == 0, shown
    report = out.splitlines()[-1]  # importing the double prints, too
    assert [plan["built"] for plan in json.loads(report)["plans"]] == [True] * 4
    for graph in GRAPHS:
        assert f"building {graph} " in shown
    assert "100%" in shown
    assert BUILDING.strip() in shown
