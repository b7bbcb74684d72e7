"""Sound of a source, beside its pictures in a recording."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from jokr_rt.video.recording import Recording
from jokr_rt.video.sound import SoundTrack
from tests import clips
from tests.cameras import numbered
from tests.receivers import probe
from tests.recordings import CODING, copied, record


def test_aac_is_copied_to_the_byte_and_stays_beside_its_pictures(tmp_path: Path) -> None:
    for name in ("camera.mp4", "camera.ts"):
        source = clips.video(tmp_path / name, 20, audio="aac")
        track, packets = copied(source)
        assert track == SoundTrack(48000, "stereo")
        delay = Fraction(1, 8)
        path = tmp_path / "rec.mp4"
        record(
            path,
            [50 + Fraction(number, 10) for number in range(20)],
            track,
            tuple((packet, 50 + delay + packet.pts_s) for packet in packets),
        )
        given = [(packet.data, packet.pts_s + delay) for packet in packets]
        found = clips.audio_packets(path)
        assert len(found) > 70
        first = [data for data, _ in given].index(found[0][0])
        for (data, at), (found_data, found_at, _) in zip(given[first:], found, strict=False):
            assert found_data == data
            assert abs(found_at - at) <= Fraction(1, 1000)
        probe(path)


@pytest.mark.parametrize(("codec", "name"), [("pcm_alaw", "a.mov"), ("libopus", "a.mkv"), ("ac3", "a.ts")])
@pytest.mark.parametrize("like", [None, SoundTrack(44100, "stereo")])
def test_other_sound_is_coded_anew_and_sounds_the_same(
    tmp_path: Path, codec: str, name: str, like: SoundTrack | None
) -> None:
    track, packets = copied(clips.video(tmp_path / name, 20, audio=codec), like)
    assert track == (like or SoundTrack(48000, "stereo"))
    start = packets[0].pts_s
    path = tmp_path / "rec.mp4"
    times = [Fraction(number, 10) for number in range(20)]
    record(path, times, track, tuple((packet, packet.pts_s - start) for packet in packets))
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * track.rate / samples.size == pytest.approx(440, abs=1)
    assert np.abs(samples[samples.size // 4 :]).max() == pytest.approx(0.25, abs=0.02)
    assert samples.size / track.rate == pytest.approx(1.9, abs=0.05)


def test_sound_from_before_the_first_picture_or_out_of_order_is_left_out(tmp_path: Path) -> None:
    track, packets = copied(clips.video(tmp_path / "camera.mp4", 20, audio="aac"))
    path = tmp_path / "rec.mp4"
    times = [1 + Fraction(number, 10) for number in range(20)]
    recording = Recording(path, CODING)
    recording.open(track)
    recording.write_sound(packets[0], Fraction(1))
    for number, at in enumerate(times):
        recording.write(numbered(number), at)
        for offset in ("0.5", "0.04", "0.03", "0.09"):  # the second is in order, the last, too
            recording.write_sound(packets[number], at - Fraction(1, 10) + Fraction(offset) % Fraction(1, 10))
    recording.close()
    found = [float(at) for _, at, _ in clips.audio_packets(path)]
    assert found == sorted(set(found))
    assert found[0] >= 0
