"""`segpipe predict`: write masks and overlays of images, folders and videos, with a model here or on a server."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from components.dataset.layout import IMAGE_EXTENSIONS
from components.errors import EXIT_FAILED, UsageError
from pipeline.cli.models import load_predictor
from pipeline.cli.options import AsJson, TlsOptions, with_options
from pipeline.cli.outputs import prepare_folder
from pipeline.cli.printing import print_json, progress_bar, say, table

if TYPE_CHECKING:
    from serving.client import Client
    from serving.client.results import Description, InstanceLimits, Segmenter
    from serving.pictures import Outcome
    from serving.video import VideoSummary

_IMAGE_SUFFIXES = {f".{extension}" for extension in IMAGE_EXTENSIONS}
_VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions(TlsOptions):
    """The model server that predicts, and the requests to it."""

    server: Annotated[
        str | None, typer.Option(help="gRPC address of a model server, instead of --model.", metavar="HOST:PORT")
    ] = None
    model_name: Annotated[
        str | None, typer.Option(help="Name of the served model.", show_default="default, or the only model")
    ] = None
    version: Annotated[int | None, typer.Option(help="Version that must answer.", min=0, show_default="any")] = None
    label: Annotated[
        str | None, typer.Option(help="Label of the version that must answer, as stable.", show_default="any")
    ] = None
    deadline: Annotated[float, typer.Option(help="Seconds for one request, retries included.")] = 60.0
    batch_size: Annotated[int, typer.Option(help="Images in a request.", min=1)] = 8
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", min=1)] = 2

    def client(self, address: str, limits: InstanceLimits) -> Client:
        """Returns a client of the server."""
        from serving.client import Client
        from serving.client.model_names import only_model

        names = ("version", "label", "deadline", "batch_size", "concurrency")
        settings = {name: getattr(self, name) for name in names}
        settings |= {"tls": self.tls_settings(), **dataclasses.asdict(limits)}
        return Client(address, model=self.model_name or only_model(address, **settings), **settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """The pictures to write."""

    out: Annotated[str, typer.Option(help="Folder for the pictures.")] = "predictions"
    opacity: Annotated[
        float,
        typer.Option(help="Opacity of the class colour in a video: 0 shows the frame, 1 the colour.", min=0, max=1),
    ] = 0.5
    boxes: Annotated[
        list[str] | None,
        typer.Option(help="Draw and write boxes around this class's connected areas; repeatable.", metavar="CLASS"),
    ] = None
    box_pixels: Annotated[int, typer.Option(help="Fewest pixels of an area that gets a box.", min=1)] = 20
    threshold: Annotated[
        float | None,
        typer.Option(help="Lowest score of an instance.", min=0, max=1, show_default="the model's min_score"),
    ] = None
    max_instances: Annotated[
        int | None,
        typer.Option(help="Most instances of an image.", min=1, show_default="the model's max_instances"),
    ] = None


@with_options
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Images, folders of images, or videos.", metavar="INPUT...")],
    model: Annotated[
        str | None, typer.Option(help="Exported model, or a folder of versions (the newest is taken).")
    ] = None,
    as_json: AsJson = False,
    *,
    pictures: PictureOptions,
    server: ServerOptions,
) -> None:
    """Write each image's mask, coloured mask and overlay with a legend; for a video, an overlaid video.

    For IMAGE.png: IMAGE_mask.png (class indices), IMAGE_color.png and IMAGE_overlay.png, and with --boxes
    IMAGE_boxes.json and IMAGE_boxes.png. Pictures that this version of the model made from the same image are kept.

    For VIDEO.mp4: VIDEO_overlay.mp4 and VIDEO_legend.png, without sound.

    A model of depth also writes IMAGE_depth.png, and VIDEO_overlay.mp4 has the depth in colours on the right.

    A model of instances writes IMAGE_overlay.png, IMAGE_instances.json (boxes, classes, scores and masks as COCO's
    run-length encoding) and VIDEO_overlay.mp4.

    An image that cannot be read is named and skipped; the exit code is then 1.
    """
    images, videos = _find_inputs(inputs)
    if (model is None) == (server.server is None):
        raise UsageError(
            f"--model and --server: found {'neither' if model is None else 'both'}, expected one of them. Give "
            "--model DIR for a model on this machine, or --server HOST:PORT for one behind a server"
        )
    out, boxes = pictures.out, pictures.boxes
    prepare_folder("--out", out)
    from serving.client.results import InstanceLimits
    from serving.pictures import write_boxes

    limits = InstanceLimits(pictures.threshold, pictures.max_instances)
    with _segmenter(model, server, limits) as segmenter:
        if boxes:
            _check_boxes(boxes, segmenter.describe())
        summaries = _write_videos(segmenter, videos, out, pictures.opacity) if videos else {}
        outcomes = _write_images(segmenter, images, out, limits) if images else []
        found = write_boxes(outcomes, segmenter.describe().class_map, boxes, pictures.box_pixels) if boxes else {}
    if as_json:
        print_json(_to_dict(outcomes, summaries, found))
    else:
        _print(outcomes, summaries, out)
        if boxes:
            say(f"{sum(map(len, found.values()))} boxes around areas of {', '.join(boxes)}")
    if any(outcome.refused for outcome in outcomes):
        raise typer.Exit(EXIT_FAILED)


def _find_inputs(arguments: list[str]) -> tuple[list[Path], list[Path]]:
    """Returns the images, those of folders included, and the videos. Raises UsageError if one does not exist."""
    images: list[Path] = []
    videos: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            images.extend(sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES))
        elif not path.is_file():
            raise UsageError(
                f"{argument}: found nothing, expected an image, a folder of images or a video. Check the path"
            )
        else:
            (videos if path.suffix.lower() in _VIDEO_SUFFIXES else images).append(path)
    if not images and not videos:
        raise UsageError(
            f"{', '.join(arguments)}: found no image, expected {', '.join(sorted(_IMAGE_SUFFIXES))} files; name a file "
            "or a folder of them, or a video"
        )
    return images, videos


@contextlib.contextmanager
def _segmenter(model: str | None, server: ServerOptions, limits: InstanceLimits) -> Iterator[Segmenter]:
    """Opens the model, here or on a server."""
    if server.server is not None:
        with server.client(server.server, limits) as client:
            yield client
    else:
        from serving.local import LocalModel

        yield LocalModel(load_predictor(str(model)), limits)


def _write_images(segmenter: Segmenter, paths: list[Path], out: str, limits: InstanceLimits) -> list[Outcome]:
    from serving.pictures import write_pictures

    outcomes = []
    with progress_bar("predicting images", "images") as on_progress:
        on_progress(0, len(paths))
        for outcome in write_pictures(segmenter, paths, out, limits):
            outcomes.append(outcome)
            on_progress(len(outcomes), len(paths))
    order = {path: place for place, path in enumerate(paths)}
    return sorted(outcomes, key=lambda outcome: order[outcome.path])


def _write_videos(segmenter: Segmenter, paths: list[Path], out: str, opacity: float) -> dict[Path, VideoSummary]:
    from components.drawing import legend
    from serving.pictures import unique_names
    from serving.video import overlay_video

    summaries, description = {}, segmenter.describe()
    for path, name in unique_names(paths).items():
        with progress_bar(f"frames of {path.name}", "frames") as on_progress:
            destination = os.path.join(out, f"{name}_overlay.mp4")
            summaries[path] = overlay_video(segmenter, str(path), destination, opacity, on_frame=on_progress)
        # Instances have labels in the video instead.
        if not description.finds_instances:
            legend(description.class_map).save(os.path.join(out, f"{name}_legend.png"))
    return summaries


def _check_boxes(boxes: list[str], description: Description) -> None:
    if description.finds_instances:
        raise UsageError(
            f"--boxes: found {description.model}, a model of instances, which has boxes of its own; expected a "
            "model of masks. Leave --boxes out"
        )
    names = description.class_map.names
    for name in boxes:
        if name not in names:
            raise UsageError(f"--boxes: found {name}, expected a class of the model: {', '.join(names)}")


def _to_dict(
    outcomes: list[Outcome], summaries: dict[Path, VideoSummary], boxes: dict[Path, list[dict[str, Any]]]
) -> dict[str, Any]:
    images = [{**dataclasses.asdict(outcome), "path": str(outcome.path)} for outcome in outcomes]
    for image, outcome in zip(images, outcomes, strict=True):
        if outcome.path in boxes:
            image["boxes"] = boxes[outcome.path]
    videos = [
        {
            **dataclasses.asdict(video),
            "path": str(path),
            "versions": [{"model": model, "version": version} for model, version in video.versions],
        }
        for path, video in summaries.items()
    ]
    return {"images": images, "videos": videos}


def _print(outcomes: list[Outcome], summaries: dict[Path, VideoSummary], out: str) -> None:
    for path, video in summaries.items():
        versions = ", ".join(_version(*answered) for answered in video.versions)
        say(f"{path}: {video.frames} frames at {video.frames_per_second:.1f} a second, {versions}")
        say(_class_table([video.class_share]))
    answered = [outcome for outcome in outcomes if not outcome.refused]
    if outcomes:
        kept = sum(outcome.kept for outcome in answered)
        say(f"{len(answered)} images written to {out}{f', {kept} of them there already' if kept else ''}")
    if answered:
        versions = ", ".join(sorted({_version(outcome.model, outcome.version) for outcome in answered}))
        confidence = sum(outcome.confidence or 0.0 for outcome in answered) / len(answered)
        say(f"{versions}, mean confidence {confidence:.3f}")
        counts = [outcome.class_count for outcome in answered if outcome.instances]
        say(_class_table([outcome.class_share for outcome in answered], counts))
    for outcome in outcomes:
        if outcome.refused:
            say(Text("skipped", "red"), f"{outcome.path}: {outcome.refused}")


def _class_table(fractions: list[dict[str, float]], counts: Sequence[dict[str, int]] = ()) -> Table:
    """Returns a row for each class: mean fraction of the pixels, number of images with it, number of instances.

    Args:
        fractions: of each image, the classes' fractions of the pixels by name.
        counts: of each image, the classes' numbers of instances by name; empty for a model of masks.
    """
    several = len(fractions) > 1
    numbers = ["fraction of pixels", *(["images with it"] if several else []), *(["instances"] if counts else [])]
    classes = table("class", *numbers, right=numbers, fold=numbers)
    for name in dict.fromkeys(name for image in fractions for name in image):
        found = [image.get(name, 0.0) for image in fractions]
        cells = [f"{sum(found) / len(found):.2%}"]
        if several:
            cells.append(str(sum(value > 0 for value in found)))
        if counts:
            cells.append(str(sum(count.get(name, 0) for count in counts)))
        classes.add_row(name, *cells)
    return classes


def _version(model: str, version: int | None) -> str:
    return model if version is None else f"{model} version {version}"
