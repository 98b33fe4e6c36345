"""Videos through a served model: frames, size, times and colours come out as they went in, plus the overlay."""

import io
from fractions import Fraction

import av
import grpc
import numpy as np
import pytest
from PIL import Image
from toy_servicer import CLASS_MAP

from components.errors import SegpipeError, UsageError
from serving.client import Client
from serving.client.results import Description, Segmentation
from serving.video import overlay_video


def make_clip(path, frames=10, size=(48, 64), rate=10):
    """Writes a clip whose left half is dark and whose right half is light, with sound, and returns its path."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=rate)
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        sound = output.add_stream("aac", rate=8000)
        for index in range(frames):
            pixels = np.full((*size, 3), 10, np.uint8)
            pixels[:, size[1] // 2 :] = 180 + 5 * index
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        output.mux(sound.encode(silence))
        output.mux(sound.encode(None))
        output.mux(video.encode(None))
    return str(path)


def _read(path):
    """Returns what a video declares, and each frame's time in seconds and pixels."""
    with av.open(path) as video:
        stream = video.streams.video[0]
        declared = {
            "streams": len(video.streams),
            "size": (stream.height, stream.width),
            "frames per second": float(stream.average_rate),
            "codec": stream.codec_context.name,
        }
        return declared, [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in video.decode(stream)]


@pytest.fixture
def client(server):
    with Client(server, model="toy", batch_size=4) as client:
        yield client


@pytest.mark.parametrize(
    ("size", "rate", "codec"),
    [
        ((48, 64), 10, None),
        ((48, 64), Fraction(30_000, 1001), None),
        ((37, 53), 10, "libx264"),
        ((48, 64), 25, "mpeg4"),
        ((37, 53), 10, "mpeg4"),
    ],
    ids=["usual", "29.97", "odd sides", "without H.264", "odd sides without H.264"],
)
def test_a_clip_keeps_frames_size_and_times(client, tmp_path, size, rate, codec):
    source, target = make_clip(tmp_path / "in.mp4", size=size, rate=rate), str(tmp_path / "out.mp4")
    calls = []

    seen = overlay_video(client, source, target, codec=codec, on_frame=lambda *call: calls.append(call))

    (_, before), (declared, after) = _read(source), _read(target)
    assert declared == {
        "streams": 1,
        "size": size,
        "frames per second": pytest.approx(float(rate), rel=1e-3),
        "codec": "mpeg4" if codec == "mpeg4" else "h264",
    }
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=1e-3)
    assert seen.frames == 10
    assert calls == [(index + 1, 10) for index in range(10)]


def test_the_colours_are_the_classes_over_the_image(client, tmp_path):
    target = str(tmp_path / "out.mp4")

    seen = overlay_video(client, make_clip(tmp_path / "in.mp4", frames=3), target, opacity=1.0)

    sky, road, _ = (np.array(color) for color in CLASS_MAP.colors)
    for _, pixels in _read(target)[1]:
        assert np.abs(pixels[24, 8] - road).max() < 12
        assert np.abs(pixels[24, 56] - sky).max() < 12
    assert seen.class_share == pytest.approx({"sky": 0.5, "road": 0.5, "void": 0.0}, abs=0.03)
    assert seen.versions == [("toy", 3)]


def test_an_invalid_video_is_explained_and_leaves_no_file(client, tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"no video")

    with pytest.raises(UsageError, match=r"in\.mp4: found Invalid data"):
        overlay_video(client, str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_an_unwritable_output_is_not_reported_as_an_invalid_video(client, tmp_path):
    source = make_clip(tmp_path / "in.mp4", frames=1)

    with pytest.raises(UsageError, match=r"absent/out\.mp4: cannot be written \(No such file or directory\)"):
        overlay_video(client, source, str(tmp_path / "absent" / "out.mp4"))


def test_a_failing_server_leaves_no_partial_video(client, toy, tmp_path):
    source = make_clip(tmp_path / "in.mp4")
    client.describe()
    segment = toy._segment

    def fail_later(request, response, num_classes, context):
        if len(toy.batches) > 1:
            context.abort(grpc.StatusCode.INTERNAL, "out of order")
        segment(request, response, num_classes, context)

    toy._segment = fail_later

    with pytest.raises(SegpipeError):
        overlay_video(client, source, str(tmp_path / "out.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


class _Estimator:
    """A model that sees a class on the left half, and nearer depth there; stands for a `Segmenter`."""

    def describe(self):
        return Description("toy", 1, CLASS_MAP, (32, 32), {}, {"depth_scale": 256})

    def segment_all(self, images):
        for index, (key, _) in enumerate(images):
            depth = np.full(key[1].shape[:2], 1000 + 100 * index, np.uint16)
            depth[:, depth.shape[1] // 2 :] = 2000 + 100 * index
            png = io.BytesIO()
            Image.fromarray(depth).save(png, "PNG")
            yield (
                key,
                Segmentation(
                    class_map=np.zeros(depth.shape, np.uint8),
                    class_share={},
                    confidence=1.0,
                    seconds=0.0,
                    legend=CLASS_MAP,
                    model="toy",
                    version=1,
                    depth_png=png.getvalue() if index < 2 else None,
                ),
            )


def test_depth_is_on_the_right_in_the_colours_of_the_first_frame(tmp_path):
    source, target = make_clip(tmp_path / "in.mp4", frames=3), str(tmp_path / "out.mp4")

    overlay_video(_Estimator(), source, target, opacity=1)

    declared, frames = _read(target)
    assert declared["size"] == (48, 128)
    first, second, last = (pixels.astype(int) for _, pixels in frames)
    near, far = first[24, 64 + 16], first[24, 64 + 48]
    assert np.abs(near - (68, 1, 84)).max() < 12
    assert np.abs(far - (253, 231, 37)).max() < 12
    # A tenth farther, on the scale of the first frame; the farthest is clipped.
    assert np.abs(second[24, 64 + 16] - near).max() > 12
    assert np.abs(second[24, 64 + 48] - far).max() < 12
    # The version that answered last has no depth.
    assert last[:, 70:].max() < 12
