"""`segpipe predict`: look at what a model sees, on images, folders and videos, locally or behind a server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from components.dataset.layout import IMAGE_EXTENSIONS
from components.errors import EXIT_FAILED, UsageError
from pipeline.cli import tls as tls_options
from pipeline.cli.models import load_predictor
from pipeline.cli.outputs import prepare_folder

if TYPE_CHECKING:
    from serving.client.results import Description, InstanceLimits, Segmenter
    from serving.pictures import Outcome
    from serving.video import VideoSummary

_IMAGE_SUFFIXES = {f".{extension}" for extension in IMAGE_EXTENSIONS}
_VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"}


def predict(
    inputs: Annotated[list[str], typer.Argument(help="Images, folders of images, or videos.", metavar="INPUT...")],
    model: Annotated[
        str | None, typer.Option(help="Exported model, or a folder of versions (the newest is taken).")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="gRPC port of a model server, instead of --model.", metavar="HOST:PORT")
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for the pictures.")] = "predictions",
    opacity: Annotated[float, typer.Option(help="Share of the class colour in a video.", min=0, max=1)] = 0.5,
    boxes: Annotated[
        list[str] | None,
        typer.Option(help="Draw and write boxes around this class's connected areas. Repeatable.", metavar="CLASS"),
    ] = None,
    box_pixels: Annotated[int, typer.Option(help="Fewest pixels of an area that gets a box.", min=1)] = 20,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Find instances with a higher score alone; default: the model's min_score.",
            min=0,
            max=1,
            show_default=False,
        ),
    ] = None,
    max_instances: Annotated[
        int | None,
        typer.Option(help="Most instances of an image; default: the model's max_instances.", min=1, show_default=False),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the served model. Left out: default, or the server's only model.", show_default=False
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(help="Version that must answer.", min=0)] = None,
    label: Annotated[str | None, typer.Option(help="Label of the version that must answer, as stable.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds for one request, retries included.")] = 60.0,
    batch_size: Annotated[int, typer.Option(help="Images in a request.", min=1)] = 8,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", min=1)] = 2,
    tls: tls_options.Encrypt = False,
    tls_ca: tls_options.CaFile = None,
    tls_cert: tls_options.CertFile = None,
    tls_key: tls_options.KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write each image's mask, coloured mask and overlay with a legend; for a video, an overlaid video.

    For IMAGE.png: IMAGE_mask.png (class indices), IMAGE_color.png and IMAGE_overlay.png; what this version of the
    model has made from the same image is kept. For VIDEO.mp4: VIDEO_overlay.mp4 and VIDEO_legend.png, without sound.
    With --boxes also IMAGE_boxes.json and IMAGE_boxes.png. A model of instances writes IMAGE_overlay.png,
    IMAGE_instances.json (boxes, classes, scores and masks as COCO's run-length encoding) and VIDEO_overlay.mp4.
    An image that cannot be read is named and skipped; the exit code is then 1.
    """
    images, videos = _sorted_out(inputs)
    if (model is None) == (server is None):
        raise UsageError(
            f"--model and --server: found {'neither' if model is None else 'both'}, expected one of them. Give "
            "--model DIR for a model on this machine, or --server HOST:PORT for one behind a server"
        )
    prepare_folder("--out", out)
    from serving.client.results import InstanceLimits

    limits = InstanceLimits(threshold, max_instances)
    settings = {"version": version, "label": label, "deadline": deadline}
    settings |= {"batch_size": batch_size, "concurrency": concurrency}
    with _segmenter(model, server, model_name, settings, limits, (tls, tls_ca, tls_cert, tls_key)) as segmenter:
        if boxes:
            _check_boxes(boxes, segmenter.describe())
        seen = _on_videos(segmenter, videos, out, opacity) if videos else {}
        outcomes = _on_images(segmenter, images, out, limits) if images else []
        found = _boxes(segmenter, outcomes, boxes, box_pixels) if boxes else {}
    if as_json:
        print(json.dumps(_as_json(outcomes, seen, found), indent=2))
    else:
        _print(outcomes, seen, out)
        if boxes:
            print(f"{sum(map(len, found.values()))} boxes around areas of {', '.join(boxes)}")
    if any(outcome.refused for outcome in outcomes):
        raise typer.Exit(EXIT_FAILED)


@contextlib.contextmanager
def _segmenter(
    model: str | None,
    server: str | None,
    model_name: str | None,
    settings: dict[str, Any],
    limits: InstanceLimits,
    tls: tuple[bool, str | None, str | None, str | None],
) -> Iterator[Segmenter]:
    """Opens the model, here or behind a server."""
    if server is None:
        from serving.local import LocalModel

        yield LocalModel(load_predictor(str(model)), limits)
        return
    from serving.client import Client
    from serving.client.model_names import only_model

    settings |= {"tls": tls_options.settings(*tls), **dataclasses.asdict(limits)}
    with Client(server, model=model_name or only_model(server, **settings), **settings) as client:
        yield client


def _on_images(segmenter: Segmenter, paths: list[Path], out: str, limits: InstanceLimits) -> list[Outcome]:
    from serving.pictures import write_pictures

    outcomes = []
    with _bar("predicting", "images") as on_progress:
        on_progress(0, len(paths))
        for outcome in write_pictures(segmenter, paths, out, limits):
            outcomes.append(outcome)
            on_progress(len(outcomes), len(paths))
    order = {path: place for place, path in enumerate(paths)}
    return sorted(outcomes, key=lambda outcome: order[outcome.path])


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


def _boxes(
    segmenter: Segmenter, outcomes: list[Outcome], names: list[str], least_pixels: int
) -> dict[Path, list[dict[str, Any]]]:
    from serving.pictures import write_boxes

    return write_boxes(outcomes, segmenter.describe().class_map, names, least_pixels)


def _on_videos(segmenter: Segmenter, paths: list[Path], out: str, opacity: float) -> dict[Path, VideoSummary]:
    from components.drawing import legend
    from serving.pictures import unique_names
    from serving.video import overlay_video

    seen, description = {}, segmenter.describe()
    for path, name in unique_names(paths).items():
        with _bar(path.name, "frames") as on_progress:
            destination = os.path.join(out, f"{name}_overlay.mp4")
            seen[path] = overlay_video(segmenter, str(path), destination, opacity, on_frame=on_progress)
        if not description.finds_instances:  # which are labelled
            legend(description.class_map).save(os.path.join(out, f"{name}_legend.png"))
    return seen


def _print(outcomes: list[Outcome], seen: dict[Path, VideoSummary], out: str) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for path, video in seen.items():
        versions = ", ".join(_version(*answered) for answered in video.versions)
        console.print(f"{path}: {video.frames} frames at {video.frames_per_second:.1f} a second, {versions}")
        console.print(_share_table([video.class_share]))
    answered = [outcome for outcome in outcomes if not outcome.refused]
    if outcomes:
        kept = sum(outcome.kept for outcome in answered)
        there = f", {kept} of them there already" if kept else ""
        console.print(f"{len(answered)} images written to {out}{there}")
    if answered:
        versions = ", ".join(sorted({_version(outcome.model, outcome.version) for outcome in answered}))
        confidence = sum(outcome.confidence or 0.0 for outcome in answered) / len(answered)
        console.print(f"{versions}, mean confidence {confidence:.3f}")
        counts = [outcome.class_count for outcome in answered if outcome.instances]
        console.print(_share_table([outcome.class_share for outcome in answered], counts))
    for outcome in outcomes:
        if outcome.refused:
            console.print(Text("skipped", "red"), f"{outcome.path}: {outcome.refused}")


def _share_table(shares: list[dict[str, float]], counts: Sequence[dict[str, int]] = ()) -> Table:
    """Returns each class's mean share of the pixels, in how many of several images it occurs, and its instances."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    columns = ["class", "share of pixels", *(["images with it"] * (len(shares) > 1)), *(["instances"] * bool(counts))]
    for column in columns:
        table.add_column(column, justify="left" if column == "class" else "right")
    for name in dict.fromkeys(name for share in shares for name in share):
        found = [share.get(name, 0.0) for share in shares]
        cells = [f"{sum(found) / len(found):.2%}"]
        if len(shares) > 1:
            cells.append(str(sum(value > 0 for value in found)))
        if counts:
            cells.append(str(sum(count.get(name, 0) for count in counts)))
        table.add_row(name, *cells)
    return table


def _as_json(
    outcomes: list[Outcome], seen: dict[Path, VideoSummary], boxes: dict[Path, list[dict[str, Any]]]
) -> dict[str, Any]:
    videos = []
    for path, video in seen.items():
        answered = [{"model": model, "version": version} for model, version in video.versions]
        videos.append({**dataclasses.asdict(video), "path": str(path), "versions": answered})
    return {
        "images": [
            {
                **dataclasses.asdict(outcome),
                "path": str(outcome.path),
                **({"boxes": boxes[outcome.path]} if outcome.path in boxes else {}),
            }
            for outcome in outcomes
        ],
        "videos": videos,
    }


def _version(model: str, version: int | None) -> str:
    return model if version is None else f"{model} version {version}"


class _Rate(ProgressColumn):
    """Images or frames a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Returns the speed of the last seconds."""
        return Text(f"{task.speed:.1f} {self._unit}/s" if task.speed else "", style="dim")


@contextlib.contextmanager
def _bar(text: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Shows a progress bar on standard error; the function it yields takes what is done and the total, if known."""
    # Not in the format, where a name's own braces and brackets would mean something.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _sorted_out(arguments: list[str]) -> tuple[list[Path], list[Path]]:
    """Returns the images and the videos named, folders opened, in order. Raises UsageError where one is missing."""
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
        raise UsageError(f"{', '.join(arguments)}: found no {', '.join(sorted(_IMAGE_SUFFIXES))} file")
    return images, videos
