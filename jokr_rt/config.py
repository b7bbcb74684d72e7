"""The numbers from which every shape of a model follows. Plain Python: the runtime reads it too."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from jokr_rt.errors import UsageError

GAUSSIAN_STD = 0.06  # of a rendered keypoint, in half-widths of the frame; at 0.1 legs stay faint


@dataclass(frozen=True)
class ModelConfig:
    """Size of a model; the defaults are the method's own (arXiv 2106.09679).

    keypoints: number K of joint keypoints.
    size: side of the square RGB frames in and out, pixels; a multiple of 64. Heatmaps have half of it.
    width: multiplier of every hidden channel count; 1.0 gives 64-1024 channels.
    extractor_size: side of the frame the extractor looks at, pixels; a multiple of 32 that divides `size`,
        64 or more. Its maps have half of it.
    """

    keypoints: int = 10
    size: int = 256
    width: float = 1.0
    extractor_size: int = 256

    def __post_init__(self) -> None:
        if not 2 <= self.keypoints <= 64:
            raise UsageError(f"keypoints must be between 2 and 64, not {self.keypoints}")
        if self.size % 64 or not 64 <= self.size <= 1024:
            raise UsageError(f"size must be a multiple of 64 between 64 and 1024, not {self.size}")
        if self.extractor_size % 32 or self.extractor_size < 64 or self.size % self.extractor_size:
            raise UsageError(
                f"extractor_size must be 64 or more, a multiple of 32 and divide {self.size}, not {self.extractor_size}"
            )
        if not 1 / 64 <= self.width <= 4:
            raise UsageError(f"width must be between 1/64 and 4, not {self.width}")

    @property
    def heatmap_size(self) -> int:
        """Side of rendered heatmaps and of the appearance map, in cells."""
        return self.size // 2

    @property
    def extractor_map_size(self) -> int:
        """Side of the extractor's keypoint maps, in cells."""
        return self.extractor_size // 2

    @property
    def can_be_halved(self) -> bool:
        """Whether the model can be trained on frames of half the size, too."""
        return (self.size // 2) % max(64, self.extractor_size) == 0

    def channels(self, full: int) -> int:
        """Hidden channels where the `full` preset has `full` of them."""
        return max(4, round(full * self.width))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> "ModelConfig":
        """Read what `to_json` wrote. Raises UsageError for unknown, missing or wrongly typed values."""
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or set(values) != set(names):
            raise UsageError(f"a model config needs exactly the keys {', '.join(names)}")
        for name, value in values.items():
            allowed = (int, float) if name == "width" else (int,)
            if isinstance(value, bool) or not isinstance(value, allowed):
                raise UsageError(
                    f"model config: {name} must be {'a' if name == 'width' else 'a whole'} number, not {value!r}"
                )
        return cls(**values)


AUTO = "auto"
"""In place of a preset's name: the one that suits the machine."""

PRESETS = {
    "full": ModelConfig(keypoints=14, extractor_size=128),
    "realtime": ModelConfig(keypoints=14, width=0.5, extractor_size=128),
    "small": ModelConfig(keypoints=14, size=128, width=0.375, extractor_size=128),
}
