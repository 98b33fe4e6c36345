"""Draws predictions over a video; the output has the same height and frame times.

Several requests run at a time, but frames are written in order; memory holds only the frames in progress.
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
from components.report.pictures import colored_depth
from serving.client.results import Answer, Refused, Segmenter
from serving.painting import paint

# A multiple of the usual frame rates, including 24000/1001 and 30000/1001, that fits MPEG-4's 16 bits.
_TIME_BASE = Fraction(1, 60_000)
_JPEG = {"quality": 95, "subsampling": 0}
_CODECS = {"libx264": {"crf": "20", "preset": "fast"}, "mpeg4": {}}


@dataclasses.dataclass(frozen=True)
class VideoSummary:
    """Summary of a video.

    Attributes:
        frames: number of frames.
        frames_per_second: frames processed per second.
        class_share: each class's fraction of the pixels, mean over the frames.
        confidence: mean over the frames; for instances, the mean of their mean scores.
        versions: models and versions that answered, in order of their first answer.
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
    """Writes a video with its classes or instances drawn over it, as H.264 or MPEG-4 in MP4, without sound.

    If the model estimates depth, the video has twice the width: on the right is the depth in colours from near to far.
    Their range is that of the first frame.

    Args:
        segmenter: the model.
        source: a video in a format of FFmpeg.
        destination: the MP4 file; it appears when it is complete.
        opacity: of the colours, 0 to 1.
        codec: an FFmpeg encoder; by default libx264, or mpeg4 if PyAV was built without it.
        on_frame: called with the number of finished frames and the total, None if the file does not contain it.

    Raises:
        UsageError: the file is not a readable video, or the destination is not writable.
        SegpipeError: the model cannot be reached or rejects a frame.
    """
    codec = codec or ("libx264" if "libx264" in av.codecs_available else "mpeg4")
    part = f"{destination}.part"
    _check_writable(part, destination)
    try:
        with av.open(source) as video:
            if not video.streams.video:
                raise UsageError(f"{source}: found no video stream, expected a video. Choose another file")
            with av.open(part, "w", format="mp4") as output:
                summary = _copy(segmenter, video, output, codec, opacity, on_frame)
        os.replace(part, destination)
    except av.error.FFmpegError as error:
        raise UsageError(
            f"{source}: found {error.strerror or error}, expected a video in a format of FFmpeg. Convert it, or choose "
            "another file"
        ) from None
    finally:
        if os.path.exists(part):
            os.remove(part)
    return summary


def _check_writable(part: str, destination: str) -> None:
    """Raises UsageError if the video cannot be written; FFmpeg's own error would blame the source."""
    try:
        with open(part, "wb"):
            pass
    except OSError as error:
        raise UsageError(
            f"{destination}: cannot be written ({error.strerror}); expected a file in a writable folder"
        ) from None


def _copy(
    segmenter: Segmenter,
    video: av.container.InputContainer,
    output: av.container.OutputContainer,
    codec: str,
    opacity: float,
    on_frame: Callable[[int, int | None], None],
) -> VideoSummary:
    """Segments, paints and writes every frame."""
    read = video.streams.video[0]
    depths = _DepthPictures() if segmenter.describe().estimates_depth else None
    written = _output_stream(output, read, codec, read.width * (2 if depths else 1))
    frames, confidence, started = 0, 0.0, time.monotonic()
    class_share: dict[str, float] = collections.defaultdict(float)
    versions: dict[tuple[str, int | None], None] = {}
    for (pts, pixels), result in segmenter.segment_all(_frames(video, read)):
        if isinstance(result, Refused):
            raise SegpipeError(f"frame {frames + 1}: found {result.reason}. The model cannot read such frames")
        painted = paint(pixels, result, opacity)
        if depths:
            painted = np.hstack([painted, depths.draw(result, painted.shape)])
        frame = av.VideoFrame.from_ndarray(painted, format="rgb24")
        frame.pts, frame.time_base = pts, _TIME_BASE
        output.mux(written.encode(frame))
        frames += 1
        confidence += result.confidence
        versions[result.model, result.version] = None
        for name, fraction in result.class_share.items():
            class_share[name] += fraction
        on_frame(frames, read.frames or None)
    output.mux(written.encode(None))
    count = max(1, frames)
    return VideoSummary(
        frames=frames,
        frames_per_second=frames / (time.monotonic() - started),
        class_share={name: total / count for name, total in class_share.items()},
        confidence=confidence / count,
        versions=list(versions),
    )


class _DepthPictures:
    """Colours the depth maps of a video, all in the range of the first one, so that colours do not flicker."""

    def __init__(self) -> None:
        # The percentiles 0 to 100 of the first depth map, from which `colored_depth` computes the same range as from
        # all pixels.
        self._percentiles: np.ndarray | None = None

    def draw(self, answer: Answer, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the picture of a frame, uint8 [H, W, 3]; black if this version of the model has no depth."""
        png = getattr(answer, "depth_png", None)
        if png is None:
            return np.zeros(shape, np.uint8)
        with Image.open(io.BytesIO(png)) as image:
            depth = np.asarray(image, np.float64)
        if self._percentiles is None:
            self._percentiles = np.percentile(depth, range(101))
        return colored_depth(depth, self._percentiles)


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


def _output_stream(
    output: av.container.OutputContainer, read: av.VideoStream, codec: str, width: int
) -> av.VideoStream:
    """Adds a stream with the height and rate of the source."""
    stream = output.add_stream(codec, rate=read.average_rate or 25, options=_CODECS.get(codec, {}))
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height = width, read.height
    # Chroma at half the resolution needs even sides; otherwise it is stored in full.
    even = width % 2 == read.height % 2 == 0
    stream.pix_fmt = "yuv420p" if even or codec != "libx264" else "yuv444p"
    stream.codec_context.time_base = _TIME_BASE
    if codec != "libx264":
        stream.bit_rate = int(width * read.height * (read.average_rate or 25) / 4)
    return stream
