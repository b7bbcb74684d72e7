"""The demo: film one puppet on a walk it was never trained on, and let the other puppet walk like it.

    python examples/demo.py OUT

Writes OUT/source.mp4, OUT/out.mp4 (input, keypoints, output side by side) and OUT/sheet.png. Needs no PyTorch.
"""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np

from jokr_rt import open_bundle, read_video
from jokr_rt.evaluation.puppets import PUPPETS, TEST, joints, render, write_video
from jokr_rt.video import write_png

BUNDLE = Path(__file__).parent / "puppets.jokr"
COLUMNS = 8


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = open_bundle(BUNDLE).config.size
    motion = TEST.motion()  # not the seed and gait of the training
    print(f"filming the source puppet: {folder / 'source.mp4'}", flush=True)
    write_video(folder / "source.mp4", PUPPETS["brown"], motion, size)
    command = ["jokr", "run", str(BUNDLE), str(folder / "source.mp4"), "-o", str(folder / "out.mp4")]
    command += ["--direction", "a2b", "--layout", "side-by-side", "--overwrite"]
    print("$", *command, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("jokr")), *command[1:]], check=True)
    truth = joints(PUPPETS["blue"], motion)
    columns = []
    for index, frame in islice(enumerate(read_video(folder / "out.mp4")), 0, None, TEST.frames // COLUMNS):
        partner, mask = render(PUPPETS["blue"], truth[index], size)
        on_black = partner * (mask[..., None] > 127)
        columns.append(np.concatenate([*np.split(frame.rgb, 3, axis=1), on_black.astype(np.uint8)]))
    write_png(folder / "sheet.png", np.concatenate(columns, axis=1))
    print(f"""
Look at
  {folder / "out.mp4"}    input, keypoints and output side by side: the blue puppet walks like the brown one
  {folder / "sheet.png"}  the same as a picture; rows are input, keypoints, output, and the true answer,
                   which the model never saw: compare legs, tail and head of the last two rows
Watch it move, and drag its keypoints (before a camera this model needs the puppet: it knows no people):
  {Path(sys.executable).with_name("jokr")} studio {BUNDLE} {folder / "source.mp4"}
Your own two clips: see "Your own clips" in README.md""")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
