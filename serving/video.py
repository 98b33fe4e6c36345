"""Lays what a model sees over a video: frames in, predictions, frames out at the same size and times.

Frames are asked for several requests at a time and written in order; memory holds only those under way.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import av.error
import numpy as np
from PIL import Image

from components.errors import SegpipeError, UsageError
from serving.client.results import Answer, Refused, Segmenter
from serving.painting import paint

# Divides the usual frame rates, 24000/1001 and 30000/1001 among them, and is within MPEG-4's 16 bits.
_TIME_BASE = Fraction(1, 60_000)
_JPEG = {"quality": 95, "subsampling": 0}
_CODECS = {"libx264": {"crf": "20", "preset": "fast"}, "mpeg4": {}}


@dataclasses.dataclass(frozen=True)
class VideoSummary:
    """What was seen in a video.

    Attributes:
        frames: how many there were.
        frames_per_second: how many were carried over in a second.
        class_share: each class's share of the pixels, mean over the frames.
        confidence: mean over the frames; of instances, the mean of their mean scores.
        versions: model and version of those that answered, in order of their first answer.
    """

    frames: int
    frames_per_second: float
    class_share: dict[str, float]
    confidence: float
    versions: list[tuple[str, int | None]]


def overlay_video(
    segmenter: Segmenter,
    source: str,
    destination: str,
    opacity: float = 0.5,
    codec: str | None = None,
    on_frame: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoSummary:
    """Writes a video with the colours of classes or instances over it, H.264 or MPEG-4 in MP4, without sound.

    Args:
        segmenter: the model.
        source: a video that FFmpeg reads.
        destination: the MP4 file; it appears when it is complete.
        opacity: share of the colour, 0 to 1.
        codec: an encoder of FFmpeg's; by default libx264, or mpeg4 where PyAV was built without it.
        on_frame: called with the number of frames done and in all, None where the file does not say.

    Raises:
        UsageError: the file is no video that can be read, or the destination cannot be written.
        SegpipeError: the model cannot be asked.
    """
    codec = codec or ("libx264" if "libx264" in av.codecs_available else "mpeg4")
    part = f"{destination}.part"
    _check_writable(part, destination)
    try:
        with av.open(source) as video:
            if not video.streams.video:
                raise UsageError(f"{source}: found no video stream, expected a video. Name another file")
            with av.open(part, "w", format="mp4") as output:
                summary = _copy(segmenter, video, output, codec, opacity, on_frame)
        os.replace(part, destination)
    except av.error.FFmpegError as error:
        raise UsageError(
            f"{source}: found {error.strerror or error}, expected a video that FFmpeg reads. Convert it or name another"
        ) from None
    finally:
        if os.path.exists(part):
            os.remove(part)
    return summary


def _check_writable(part: str, destination: str) -> None:
    """Raises UsageError where the video cannot be written; FFmpeg would say so of whatever it is reading."""
    try:
        with open(part, "wb"):
            pass
    except OSError as error:
        raise UsageError(
            f"{destination}: cannot be written ({error.strerror}); expected a file in a folder of yours that is there"
        ) from None


def _copy(
    segmenter: Segmenter,
    video: av.container.InputContainer,
    output: av.container.OutputContainer,
    codec: str,
    opacity: float,
    on_frame: Callable[[int, int | None], None],
) -> VideoSummary:
    """Carries every frame over, through the model."""
    read = video.streams.video[0]
    written = _output_stream(output, read, codec)
    seen = _Seen()
    for (pts, pixels), result in segmenter.segment_all(_frames(video, read)):
        if isinstance(result, Refused):
            raise SegpipeError(f"frame {seen.frames + 1}: found {result.reason}. The model cannot read frames like it")
        painted = paint(pixels, result, opacity)
        frame = av.VideoFrame.from_ndarray(painted, format="rgb24")
        frame.pts, frame.time_base = pts, _TIME_BASE
        output.mux(written.encode(frame))
        seen.add(result)
        on_frame(seen.frames, read.frames or None)
    output.mux(written.encode(None))
    return seen.summary()


def _frames(
    video: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[tuple[int, np.ndarray], bytes]]:
    """Yields the time in `_TIME_BASE`, the pixels, uint8 [H, W, 3], and the encoded image of each frame."""
    stream.thread_type = "AUTO"
    rate = stream.average_rate or Fraction(25)
    for index, frame in enumerate(video.decode(stream)):
        seconds = index / rate if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        pixels = frame.to_ndarray(format="rgb24")
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG", **_JPEG)
        yield (round(seconds / _TIME_BASE), pixels), encoded.getvalue()


def _output_stream(output: av.container.OutputContainer, read: av.VideoStream, codec: str) -> av.VideoStream:
    """Adds a stream like the one that is read."""
    stream = output.add_stream(codec, rate=read.average_rate or 25, options=_CODECS.get(codec, {}))
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height = read.width, read.height
    # Colours at half the resolution need even sides; where one is odd, they are kept in full.
    even = read.width % 2 == read.height % 2 == 0
    stream.pix_fmt = "yuv420p" if even or codec != "libx264" else "yuv444p"
    stream.codec_context.time_base = _TIME_BASE
    if codec != "libx264":
        stream.bit_rate = int(read.width * read.height * (read.average_rate or 25) / 4)
    return stream


class _Seen:
    """Adds up what the frames show."""

    def __init__(self) -> None:
        self.frames = 0
        self._started = time.monotonic()
        self._shares: dict[str, float] = collections.defaultdict(float)
        self._confidence = 0.0
        self._versions: dict[tuple[str, int | None], None] = {}

    def add(self, result: Answer) -> None:
        """Adds one frame."""
        self.frames += 1
        self._confidence += result.confidence
        self._versions[result.model, result.version] = None
        for name, share in result.class_share.items():
            self._shares[name] += share

    def summary(self) -> VideoSummary:
        """Returns the means."""
        count = max(1, self.frames)
        return VideoSummary(
            frames=self.frames,
            frames_per_second=self.frames / (time.monotonic() - self._started),
            class_share={name: share / count for name, share in self._shares.items()},
            confidence=self._confidence / count,
            versions=list(self._versions),
        )
