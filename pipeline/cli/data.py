"""`segpipe data`: make, fetch, import or check a folder of images and masks; none of it needs TensorFlow."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from components.errors import EXIT_DATA_REJECTED, UsageError

if TYPE_CHECKING:
    from components.dataset.description import DatasetDescription
    from components.dataset.encoded import Limits
    from components.dataset.inspection import Inspection

app = typer.Typer(help="Make, fetch, import or check a folder of images and masks.", no_args_is_help=True)

# The keys of `downloads.DATASETS` and of `components.importers.READERS`, listed here so that --help imports neither.
PUBLIC_DATASETS = ("camvid", "pets")
FORMATS = ("coco", "voc", "yolo", "labelme", "cvat", "label-studio", "supervisely")
_ISSUES_SHOWN = 20
# Names and bytes of a data set are printed as they are, square brackets and colons too.
_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}


@app.command()
def make(
    destination: Annotated[str, typer.Argument(help="Folder to write.")],
    train: Annotated[int, typer.Option(help="Pairs in the training split.", min=1)] = 160,
    val: Annotated[int, typer.Option(help="Pairs in the validation split.", min=1)] = 40,
    size: Annotated[str, typer.Option(help="Image size in pixels.", metavar="HxW")] = "120x160",
    seed: Annotated[int, typer.Option(help="The same seed makes the same files.")] = 7,
) -> None:
    """Make a synthetic street-scene data set with CamVid's twelve classes."""
    from components.dataset.synthetic import make as make_synthetic
    from pipeline.configuration.config import parse_size

    try:
        height_and_width = parse_size(size)
    except UsageError as error:
        raise UsageError(f"--size: {error}") from None
    with _bar("drawing street scenes") as on_progress:
        made = make_synthetic(
            destination, pairs={"train": train, "val": val}, size=height_and_width, seed=seed, on_progress=on_progress
        )
    what = f"{train} training and {val} validation pairs in {destination}"
    Console(**_PLAIN).print(what if made else f"{what}, already there")


@app.command()
def fetch(
    destination: Annotated[str, typer.Argument(help="Folder to write.")],
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(PUBLIC_DATASETS)}.")] = PUBLIC_DATASETS[0],
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", help="Split of CamVid: train, val or test; repeatable.", show_default="all"),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Another address of the same files, such as a mirror.")] = None,
) -> None:
    """Fetch CamVid or Oxford-IIIT Pets from its public address, every file checked against its SHA-256.

    What is there already is kept, so run it again after an interruption. CamVid is for research use (CC BY-NC 4.0);
    Oxford-IIIT Pets is licensed CC BY-SA 4.0, 811 MB to download and twice that on the disk.
    """
    from components.dataset import downloads

    if dataset not in downloads.DATASETS:
        raise UsageError(f"--dataset: found {dataset}, expected one of {', '.join(downloads.DATASETS)}")
    chosen = downloads.DATASETS[dataset]
    with _bar(f"fetching {chosen.title}") as on_progress:
        fetched = downloads.fetch(chosen, destination, address, splits or (), on_progress)
    Console(**_PLAIN).print(
        f"{fetched.downloaded} files fetched ({fetched.bytes / 1e6:.0f} MB), {fetched.kept} kept, in {destination}"
    )
    Console(**_PLAIN).print(chosen.licence)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Folder or annotation file to read; nothing in it is changed.")],
    destination: Annotated[str, typer.Argument(help="Folder to write; new or empty.")],
    format_name: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")],
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Class to keep, in index order; repeatable.", show_default="all"),
    ] = None,
    val: Annotated[
        float, typer.Option(help="Fraction held out for validation if SOURCE has no such split.", min=0.01, max=0.99)
    ] = 0.2,
    sequence: Annotated[
        str | None,
        typer.Option(
            help="Regular expression with one group, the video or group in an image's name, such as '^([^_]+)_'."
            " A sequence stays in one split.",
            show_default="every image is its own",
        ),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link the images; the default is to copy them.")] = False,
) -> None:
    """Import a data set from an annotation tool's format into a folder that `segpipe run` takes.

    Pixels that no shape covers become the class background. Exit code 4 if something could not be imported.
    """
    from components.importers import Options, import_dataset

    with _bar("importing images") as on_progress:
        options = Options(classes=classes or (), val=val, sequence=sequence, link=link)
        result = import_dataset(format_name, source, destination, options, on_progress)
    console = Console(**_PLAIN)
    counts = ", ".join(f"{count} {split}" for split, count in result.pairs.items())
    console.print(f"{sum(result.pairs.values())} pairs in {destination}: {counts}; {len(result.classes)} classes")
    if result.held_out and sequence is None:
        console.print(
            Text("note", "yellow"),
            "val was chosen image by image; for frames of videos, delete the folder and import with --sequence",
        )
    for kind, count in sorted(result.lost.items()):
        console.print(Text("lost", "yellow"), f"{kind}: {count}")
    for problem in result.problems[:_ISSUES_SHOWN]:
        console.print(Text("left out", "red"), problem)
    if len(result.problems) > _ISSUES_SHOWN:
        console.print(f"... and {len(result.problems) - _ISSUES_SHOWN} more left out")
    console.print(f"Check it with: segpipe data check {shlex.quote(destination)}")
    if result.problems:
        raise typer.Exit(EXIT_DATA_REJECTED)


@app.command()
def check(
    folder: Annotated[str, typer.Argument(help="Folder of images and masks.")],
    description: Annotated[
        str,
        typer.Option(help="YAML that describes the folder, or the name of a built-in description; auto recognises it."),
    ] = "auto",
    max_side: Annotated[
        int | None, typer.Option(help="Largest height or width in pixels.", min=8, show_default="that of data.max_side")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(help="Largest height times width.", min=1, show_default="that of export.max_pixels"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    report: Annotated[
        str | None,
        typer.Option(
            help="Also write a page with sample pairs, rare classes, duplicates and pictures of faulty files: one HTML"
            " file of at most 5 MB.",
            metavar="FILE.html",
            show_default="no page",
        ),
    ] = None,
) -> None:
    """Report on a folder: counts, sizes, class frequencies and every issue.

    Exit code 4 where a pair is faulty, 0 where all are sound.
    """
    from components.dataset.data_files import listed_once
    from components.dataset.description import detect, load
    from components.dataset.encoded import Limits
    from components.dataset.inspection import inspect
    from pipeline.cli.outputs import prepare_file

    if report is not None:
        prepare_file("--report", report)
    given = {"max_side": max_side, "max_pixels": max_pixels}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    with listed_once(), _bar("reading pairs") as on_progress:
        described = detect(folder) if description == "auto" else load(description)
        result = inspect(folder, described, on_progress=on_progress, limits=limits)
    if report is not None:
        _write_report(report, folder, described, result, limits)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        _print_inspection(result)
    if result.issues:
        raise typer.Exit(EXIT_DATA_REJECTED)


def _write_report(path: str, folder: str, description: DatasetDescription, result: Inspection, limits: Limits) -> None:
    """Writes the page and names it on standard error, as standard output may be JSON."""
    from components import files
    from components.data_report.contents import collect
    from components.data_report.render import render

    with _bar("drawing pictures") as on_progress:
        contents = collect(folder, description, result, limits, on_progress)
    # A file name need not be UTF-8.
    files.write_bytes(path, render(contents).encode(errors="replace"))
    Console(stderr=True, **_PLAIN).print(f"report in {path}")


def _print_inspection(result: Inspection) -> None:
    console = Console(**_PLAIN)
    console.print(f"{result.root}: layout {result.description}\n")
    overview = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("split", "pairs", "faulty", "sizes", "sequences"):
        overview.add_column(column, justify="right" if column in ("pairs", "faulty") else "left")
    for name, split in result.splits.items():
        sizes = ", ".join(f"{height}x{width} ({count})" for (height, width), count in list(split.sizes.items())[:3])
        sizes += f" and {len(split.sizes) - 3} more" if len(split.sizes) > 3 else ""
        sequences = ", ".join(f"{sequence} ({count})" for sequence, count in list(split.sequences.items())[:6])
        sequences += f" and {len(split.sequences) - 6} more" if len(split.sequences) > 6 else ""
        overview.add_row(name, str(split.pairs), str(sum(split.quarantined.values())), sizes, sequences)
    console.print(overview)
    console.print()
    console.print(_class_fractions(result))
    for warning in result.warnings:
        console.print(Text("warning", "yellow"), warning)
    for issue in result.issues[:_ISSUES_SHOWN]:
        explanation = f"{issue.file}: found {issue.found}, expected {issue.expected}; {issue.action}"
        console.print(Text(issue.reason, "red"), explanation)
    if len(result.issues) > _ISSUES_SHOWN:
        console.print(f"... and {len(result.issues) - _ISSUES_SHOWN} more issues; --json lists them all")


def _class_fractions(result: Inspection) -> Table:
    """Returns the fraction of pixels and the number of instances of each class, a column for each split."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("class")
    for name in result.splits:
        table.add_column(f"pixels in {name}", justify="right")
    with_instances = {name: split for name, split in result.splits.items() if split.class_instances}
    for name in with_instances:
        table.add_column(f"instances in {name}", justify="right")
    for index, class_name in enumerate(result.class_names):
        fractions = [f"{split.class_fractions[index]:.2%}" for split in result.splits.values()]
        # Most classes are no things.
        counts = [str(split.class_instances[index] or "") for split in with_instances.values()]
        table.add_row(class_name, *fractions, *counts)
    return table


@contextlib.contextmanager
def _bar(text: str) -> Iterator[Callable[[float, int], None]]:
    """Shows a progress bar on standard error; the function it yields takes what is done and the total."""
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
