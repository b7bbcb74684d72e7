"""What can be said of a live stream. The command line, a configuration file and Python use the same names."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from jokr_rt.errors import UsageError
from jokr_rt.keypoints import BETA, D_CUTOFF, MIN_CUTOFF
from jokr_rt.live.masks import check_mask
from jokr_rt.live.sink import SinkOptions
from jokr_rt.video.capture import CameraMode, CaptureOptions, check_source

ON_LOSS = ("freeze", "slate", "passthrough", "stop")

COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "green": (0, 177, 64),
    "blue": (0, 71, 187),
    "grey": (128,) * 3,
}
"""By name; green and blue are those of chroma key cloth."""


@dataclass(frozen=True)
class LiveOptions:
    """One stream. Times are in seconds. Raises UsageError for what cannot be meant, InputError for a missing file.

    input, output: see `jokr_rt.video.capture.open_capture` and `jokr_rt.live.sinks.open_sink`. name: of the stream, in
    messages, figures and file names. direction: "a2b" or "b2a", or by the domains' names. appearance: path of a picture
    of the creature to draw, before black or transparent, instead of the bundle's own.

    camera_size, camera_rate, camera_format, rtsp_transport, hwaccel, realtime, loop, audio, stall, open: see
    `jokr_rt.video.capture.CaptureOptions`. retries, backoff: see `jokr_rt.live.source.LiveSource`.

    on_loss: what is shown while the source is lost. "freeze": the last picture, with a banner that says so; "slate": a
    card; "passthrough": nothing, so that the gap passes to the outputs; "stop": the stream ends.

    mask: "none", "static-background", "alpha" or a segmentation network's .onnx file; see `jokr_rt.live.masks`. learn:
    how long the static background is learned.

    size: (width, height) of the output, pixels; None is the model's square. background: what the creature is shown
    before: one of `COLOURS`, "#rrggbb", or a picture's path. paste: before the source itself; with a static background,
    before that. feather: width of the soft edge, pixels. keypoints: show in a
    corner what the model sees, and them in it.

    smooth, smooth_beta, smooth_speed: min_cutoff (Hz; 0 for no smoothing), beta and d_cutoff (Hz) of
    `jokr_rt.keypoints.OneEuroFilter`. hold: where the keypoints' mean confidence is below this, the last pose is held.

    rate, bitrate, keyframe_interval, queue, sink_stall, sink_retries, overwrite: of the outputs; see
    `jokr_rt.live.sink.SinkOptions`.
    """

    input: str
    output: tuple[str, ...]
    name: str = "live"
    direction: str = "a2b"
    appearance: str | None = None

    camera_size: tuple[int, int] | None = None
    camera_rate: Fraction | None = None
    camera_format: str | None = None
    rtsp_transport: str = "tcp"
    hwaccel: str = "none"
    realtime: bool = False
    loop: bool = False
    audio: bool = True
    stall: float = 2.0
    open: float = 10.0
    retries: int | None = None
    backoff: tuple[float, float] = (0.5, 10.0)

    on_loss: str = "slate"

    mask: str = "none"
    learn: float = 2.0
    size: tuple[int, int] | None = None
    background: str = "black"
    paste: bool = False
    feather: float = 3.0
    keypoints: bool = False
    smooth: float = MIN_CUTOFF
    smooth_beta: float = BETA
    smooth_speed: float = D_CUTOFF
    hold: float = 0.1

    rate: Fraction = Fraction(25)
    bitrate: int | None = None
    keyframe_interval: float = 2.0
    queue: int = 4
    sink_stall: float = 5.0
    sink_retries: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.output:
            raise UsageError(f"{self.name}: no output; name at least one")
        if not re.fullmatch(r"[\w-]+", self.name):
            raise UsageError(f"a stream's name is for file names too: letters, digits, - and _; not {self.name!r}")
        if self.on_loss not in ON_LOSS:
            raise UsageError(f"unknown on-loss {self.on_loss!r}; choose {', '.join(ON_LOSS)}")
        if self.size is not None and not all(16 <= side <= 4096 and side % 2 == 0 for side in self.size):
            raise UsageError(f"size must be even and 16 to 4096 pixels each way, not {self.size[0]}x{self.size[1]}")
        for what in ("feather", "smooth", "smooth_beta", "learn"):
            if not 0 <= getattr(self, what) < math.inf:
                raise UsageError(f"{what.replace('_', '-')} must be 0 or more, not {getattr(self, what)}")
        if not 0 < self.smooth_speed < math.inf:
            raise UsageError(f"smooth-speed must be a cutoff frequency above 0 Hz, not {self.smooth_speed}")
        if not 0 <= self.hold <= 1:
            raise UsageError(f"hold must be a confidence between 0 and 1, not {self.hold}")
        if self.paste and self.background != "black":
            raise UsageError("paste shows the source behind the creature, and background something else; choose one")
        check_mask(self.mask)
        colour_of(self.background)

    def check(self) -> None:
        """Look whether the source can be there. Raises as `jokr_rt.video.capture.check_source` does."""
        check_source(self.input, self.capture(None))

    def capture(self, side: int | None) -> CaptureOptions:
        """side: of the square that the model sees."""
        return CaptureOptions(
            camera=CameraMode(self.camera_size, self.camera_rate, self.camera_format),
            rtsp_transport=self.rtsp_transport,
            hwaccel=self.hwaccel,
            realtime=self.realtime,
            loop=self.loop,
            sound=self.audio,
            stall_s=self.stall,
            open_s=self.open,
            letterbox=None if self.paste else side,
        )

    def sink(self) -> SinkOptions:
        return SinkOptions(
            rate=self.rate,
            bitrate=self.bitrate,
            keyframe_s=self.keyframe_interval,
            queue=self.queue,
            stall_s=self.sink_stall,
            retries=self.sink_retries,
            overwrite=self.overwrite,
        )


def colour_of(background: str) -> tuple[int, int, int] | None:
    """RGB of one of `COLOURS` or "#rrggbb"; None for the path of a picture. Raises UsageError where there is none."""
    if background in COLOURS:
        return COLOURS[background]
    if re.fullmatch("#[0-9a-fA-F]{6}", background):
        red, green, blue = bytes.fromhex(background[1:])
        return red, green, blue
    if not Path(background).is_file():
        raise UsageError(f"background {background}: no such picture; choose one, {', '.join(COLOURS)} or #rrggbb")
    return None
