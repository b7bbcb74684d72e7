"""metrics.jsonl and TensorBoard's scalars: as many as there were steps, also after a resumed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jokr_rt.config import ModelConfig
from jokr_rt.errors import OutputError
from jokr_rt.training.data import Clip
from jokr_rt.training.log import METRICS, TENSORBOARD, MetricsLog
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.options import TrainOptions
from jokr_rt.training.train import Training
from tests.tiny import creature_clips

# Four steps of either stage.
OPTIONS = TrainOptions(
    config=ModelConfig(keypoints=4, size=64, width=1 / 16, extractor_size=64),
    steps=8, geometry=0.5, batch=2, lr=5e-4, save_every=2, weights=LossWeights(perceptual=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> tuple[Clip, Clip]:
    return creature_clips(4)


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def scalars_of(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / TENSORBOARD)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_every_step_is_logged_and_a_resumed_run_goes_on_where_it_was_saved(clips, tmp_path):
    reported: dict[int, dict[str, float]] = {}

    class Stop(Exception):
        pass

    def stop_at_three(step, steps, losses, share):
        reported[step] = losses
        if step == 3:  # saved after 2
            raise Stop

    with pytest.raises(Stop):
        Training(clips, OPTIONS, tmp_path, torch.device("cpu")).run(stop_at_three)
    before = lines_of(tmp_path)
    assert [line["step"] for line in before] == [1, 2, 3]
    resumed = Training(clips, OPTIONS, tmp_path, torch.device("cpu"))
    resumed.resume()
    resumed.run(lambda step, steps, losses, share: reported.update({step: losses}))

    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[:2] == before[:2]
    assert [line["losses"] for line in lines] == [reported[step] for step in range(1, 9)]
    assert lines[2]["losses"] == before[2]["losses"]  # the step done again is the same step
    assert [line["lr"] for line in lines] == [5e-4, 5e-4, 5e-4, 2.5e-4] * 2
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0

    for tag, steps in (("silhouette", range(1, 5)), ("classifier", range(1, 5)), ("reconstruction", range(5, 9))):
        expected = [(step, pytest.approx(reported[step][tag])) for step in steps]
        assert scalars_of(tmp_path, f"losses/{tag}") == expected
    assert scalars_of(tmp_path, "lr")[3] == (4, pytest.approx(2.5e-4))


def test_a_torn_line_and_what_follows_it_is_dropped(tmp_path):
    kept = '{"step": 1, "seconds": 5.0, "lr": 0.1, "losses": {}}\n'
    (tmp_path / METRICS).write_text(kept + '{"step": 2, "sec')
    with MetricsLog(tmp_path, 2) as log:
        log.write(3, 0.5, {"cycle": 0.25})
    first, third = lines_of(tmp_path)
    assert first == json.loads(kept)
    assert third.pop("seconds") >= 5
    assert third == {"step": 3, "lr": 0.5, "losses": {"cycle": 0.25}}
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, 0.5, {"cycle": 0.5})
    (only,) = lines_of(tmp_path)
    assert (only["step"], only["losses"]) == (1, {"cycle": 0.5})
    assert scalars_of(tmp_path, "losses/cycle") == [(1, 0.5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, TENSORBOARD]


def test_a_line_is_in_the_file_at_once(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write(step, 0.5, {"cycle": 1.0})
            assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, step + 1))


def test_without_tensorboard_the_lines_alone_are_written(tmp_path):
    program = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from pathlib import Path\n"
        "from jokr_rt.training.log import HAS_TENSORBOARD, MetricsLog\n"
        "with MetricsLog(Path(sys.argv[1]), 0) as log: log.write(1, 0.5, {'cycle': 1.0})\n"
        "print(HAS_TENSORBOARD)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
    assert [path.name for path in tmp_path.iterdir()] == [METRICS]
    assert lines_of(tmp_path)[0]["losses"] == {"cycle": 1.0}


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / METRICS).mkdir()
    with pytest.raises(OutputError, match=rf"{tmp_path}: metrics cannot be written: Is a directory"):
        MetricsLog(tmp_path, 0)
    (tmp_path / METRICS).rmdir()
    (tmp_path / TENSORBOARD).write_text("")
    with pytest.raises(OutputError, match=rf"{tmp_path}: metrics cannot be written: File exists"):
        MetricsLog(tmp_path, 0)


def test_a_full_disk_is_one_line(tmp_path):
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from jokr_rt.errors import OutputError\n"
        "from jokr_rt.training.log import MetricsLog\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with MetricsLog(Path(sys.argv[1]), 0) as log:\n"
        "        for step in range(1, 100): log.write(step, 0.5, {})\n"
        "except OutputError as error: print(step, error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    step, _, words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition(" ")
    assert words == f"{tmp_path}: metrics cannot be written: File too large\n"
    whole = [line for line in (tmp_path / METRICS).read_text().splitlines() if line.endswith("}}")]
    assert [json.loads(line)["step"] for line in whole] == list(range(1, int(step)))
    with MetricsLog(tmp_path, 50) as log:  # the torn line is dropped
        log.write(int(step), 0.5, {})
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, int(step) + 1))
