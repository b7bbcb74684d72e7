"""Write the two puppets of a family of `jokr_rt.evaluation.puppets`, for training and for looking at.

Written for each: frames before a background and masks; and `truth.npz` with the true joints of both.

    python examples/puppets.py OUT --frames 192 --size 128 --seed 0 --family walker
"""

from pathlib import Path

import click
import numpy as np

from jokr_rt.evaluation.puppets import FAMILIES, Walk, joints, true_theta, write_clip, write_video


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--family", default="quadruped", show_default=True, type=click.Choice(list(FAMILIES)), help="Which two.")
@click.option("--frames", default=96, show_default=True, help="Length of the motion.")
@click.option("--size", default=128, show_default=True, help="Side of a frame, pixels.")
@click.option("--seed", default=0, show_default=True, help="Of the motion program.")
@click.option("--gait", default=1.0, show_default=True, help="Speed of the motion.")
@click.option("--video", is_flag=True, help="Write a video of each, instead of frames and masks.")
def main(out: Path, family: str, frames: int, size: int, seed: int, gait: float, video: bool) -> None:
    truth = {}
    for name, puppet in FAMILIES[family].items():
        motion = Walk(frames, seed, gait).motion(puppet.program)
        if video:
            out.mkdir(parents=True, exist_ok=True)
            write_video(out / f"{name}.mp4", puppet, motion, size)
        else:
            write_clip(out / name, puppet, motion, size)
        truth[f"joints_{name}"] = joints(puppet, motion)
    first, second = FAMILIES[family].values()
    np.savez(out / "truth.npz", **truth, theta_a2b=true_theta(first, second), theta_b2a=true_theta(second, first))


if __name__ == "__main__":
    main()
