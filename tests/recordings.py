"""What a live source's sound is made of for a test, and a recording of numbered pictures."""

from fractions import Fraction
from pathlib import Path

import av

from jokr_rt.video.live_mux import Coding
from jokr_rt.video.recording import Recording
from jokr_rt.video.sound import SoundCopy, SoundPacket, SoundTrack
from tests.cameras import numbered
from tests.receivers import HEIGHT, RATE, WIDTH

CODING = Coding(WIDTH, HEIGHT, RATE)


def copied(path: Path, like: SoundTrack | None = None) -> tuple[SoundTrack, list[SoundPacket]]:
    """The sound of a file, as a live source hands it on."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        copy = SoundCopy(stream, like)
        return copy.track, [made for packet in container.demux(stream) for made in copy.copies(packet)]


def record(path: Path, times: list[Fraction], sound: SoundTrack | None = None, packets: tuple = ()) -> None:
    recording = Recording(path, CODING)
    recording.open(sound)
    waiting = list(packets)
    for number, at in enumerate(times):
        recording.write(numbered(number), at)
        while waiting and waiting[0][1] <= at:
            recording.write_sound(*waiting.pop(0))
    recording.close()
