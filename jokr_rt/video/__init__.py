"""Reading and writing video. Nothing outside this package imports PyAV."""

from jokr_rt.video.image import read_picture, write_png
from jokr_rt.video.jpeg import jpeg
from jokr_rt.video.jpeg_reader import read_jpeg
from jokr_rt.video.pairs import Pair, is_held_out, with_masks
from jokr_rt.video.picture import letterbox, letterbox_box
from jokr_rt.video.reader import MaskSource, VideoSource, open_masks, open_video, read_video
from jokr_rt.video.stream_writer import StreamWriter
from jokr_rt.video.writer import VideoWriter, write_video

__all__ = [
    "MaskSource",
    "Pair",
    "StreamWriter",
    "VideoSource",
    "VideoWriter",
    "is_held_out",
    "jpeg",
    "letterbox",
    "letterbox_box",
    "open_masks",
    "open_video",
    "read_jpeg",
    "read_picture",
    "read_video",
    "with_masks",
    "write_png",
    "write_video",
]
