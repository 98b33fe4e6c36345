"""`segpipe data`: make, fetch, import or check a folder of images and masks, without TensorFlow."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from components.errors import EXIT_DATA_REJECTED, UsageError
from pipeline.cli.options import AsJson, Description
from pipeline.cli.outputs import prepare_file
from pipeline.cli.printing import print_json, progress_bar, say, table

if TYPE_CHECKING:
    from components.dataset.description import DatasetDescription
    from components.dataset.encoded import Limits
    from components.dataset.inspection import Inspection

app = typer.Typer(help="Make, fetch, import or check a folder of images and masks.", no_args_is_help=True)

# The keys of `downloads.DATASETS` and of `components.importers.READERS`, listed here so that --help imports neither.
PUBLIC_DATASETS = ("camvid", "pets")
FORMATS = ("coco", "voc", "yolo", "labelme", "cvat", "label-studio", "supervisely")
_ISSUES_SHOWN = 20


@app.command()
def make(
    destination: Annotated[str, typer.Argument(help="Folder to write.")],
    train: Annotated[int, typer.Option(help="Pairs in the training split.", min=1)] = 160,
    val: Annotated[int, typer.Option(help="Pairs in the validation split.", min=1)] = 40,
    size: Annotated[str, typer.Option(help="Image size in pixels.", metavar="HxW")] = "120x160",
    seed: Annotated[int, typer.Option(help="Random seed; the same seed makes the same files.")] = 7,
) -> None:
    """Make a synthetic street-scene data set with CamVid's twelve classes."""
    from components.dataset.synthetic import make as make_synthetic
    from pipeline.configuration.config import parse_size

    try:
        height_and_width = parse_size(size)
    except UsageError as error:
        raise UsageError(f"--size: {error}") from None
    with progress_bar("drawing street scenes") as on_progress:
        made = make_synthetic(
            destination, pairs={"train": train, "val": val}, size=height_and_width, seed=seed, on_progress=on_progress
        )
    say(f"{train} training and {val} validation pairs in {destination}{'' if made else ', already there'}")


@app.command()
def fetch(
    destination: Annotated[str, typer.Argument(help="Folder to write.")],
    dataset: Annotated[str, typer.Option(help=f"Data set to fetch: {' or '.join(PUBLIC_DATASETS)}.")] = PUBLIC_DATASETS[
        0
    ],
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", help="Split of CamVid: train, val or test; repeatable.", show_default="all"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Fetch the same files from a mirror, as https://HOST/FOLDER.", show_default="the public address"
        ),
    ] = None,
) -> None:
    """Fetch CamVid or Oxford-IIIT Pets from its public address and check every file's SHA-256.

    Files that exist are kept, so run it again after an interruption. CamVid is for research use (CC BY-NC 4.0).
    Oxford-IIIT Pets is licensed CC BY-SA 4.0; it is 811 MB to download and takes twice that on the disk.
    """
    from components.dataset import downloads

    if dataset not in downloads.DATASETS:
        raise UsageError(f"--dataset: found {dataset}, expected one of {', '.join(downloads.DATASETS)}")
    chosen = downloads.DATASETS[dataset]
    with progress_bar(f"fetching {chosen.title}") as on_progress:
        fetched = downloads.fetch(chosen, destination, address, splits or (), on_progress)
    size = f"{fetched.bytes / 1e6:.0f} MB"
    say(f"{fetched.downloaded} files fetched ({size}), {fetched.kept} kept, in {destination}\n{chosen.licence}")


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Folder or annotation file to read; nothing in it is changed.")],
    destination: Annotated[str, typer.Argument(help="Folder to write; new or empty.")],
    format_name: Annotated[str, typer.Option("--format", help=f"Format of SOURCE: {', '.join(FORMATS)}.")],
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
            help="Regular expression whose one group finds the sequence in an image's name, such as '^([^_]+)_'. A"
            " sequence stays in one split.",
            show_default="each image by itself",
        ),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link the images instead of copying them.")] = False,
) -> None:
    """Import a data set from an annotation tool's format into a folder that `segpipe run` takes.

    Pixels outside all shapes become the class background. Exit code 4 if something could not be imported.
    """
    from components.importers import Options, import_dataset

    with progress_bar("importing images") as on_progress:
        options = Options(classes=classes or (), val=val, sequence=sequence, link=link)
        result = import_dataset(format_name, source, destination, options, on_progress)
    counts = ", ".join(f"{count} {split}" for split, count in result.pairs.items())
    say(f"{sum(result.pairs.values())} pairs in {destination}: {counts}; {len(result.classes)} classes")
    if result.held_out and sequence is None:
        say(
            Text("note", "yellow"),
            "val was chosen image by image; for frames of videos, delete the folder and import with --sequence",
        )
    for kind, count in sorted(result.lost.items()):
        say(Text("lost", "yellow"), f"{kind}: {count}")
    for problem in result.problems[:_ISSUES_SHOWN]:
        say(Text("left out", "red"), problem)
    if len(result.problems) > _ISSUES_SHOWN:
        say(f"... and {len(result.problems) - _ISSUES_SHOWN} more left out")
    say(f"Check it with: segpipe data check {shlex.quote(destination)}")
    if result.problems:
        raise typer.Exit(EXIT_DATA_REJECTED)


@app.command()
def check(
    folder: Annotated[str, typer.Argument(help="Folder of images and masks.")],
    description: Description = "auto",
    max_side: Annotated[
        int | None,
        typer.Option(help="Largest height or width in pixels.", min=8, show_default="data.max_side of `segpipe run`"),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Largest height times width in pixels.", min=1, show_default="export.max_pixels of `segpipe run`"
        ),
    ] = None,
    as_json: AsJson = False,
    report: Annotated[
        str | None,
        typer.Option(
            help="Also write a page with sample pairs, rare classes, duplicates and pictures of files with issues: one"
            " HTML file of at most 5 MB.",
            metavar="FILE.html",
            show_default="no page",
        ),
    ] = None,
) -> None:
    """Report on a folder: counts, sizes, class frequencies and every issue.

    Exit codes: 0 no issue; 4 a pair has an issue.
    """
    from components.dataset.data_files import listed_once
    from components.dataset.description import detect, load
    from components.dataset.encoded import Limits
    from components.dataset.inspection import inspect

    if report is not None:
        prepare_file("--report", report)
    given = {"max_side": max_side, "max_pixels": max_pixels}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    with listed_once(), progress_bar("reading pairs") as on_progress:
        described = detect(folder) if description == "auto" else load(description)
        result = inspect(folder, described, on_progress=on_progress, limits=limits)
    if report is not None:
        _write_report(report, folder, described, result, limits)
    if as_json:
        print_json(result.to_dict())
    else:
        _print_inspection(result)
    if result.issues:
        raise typer.Exit(EXIT_DATA_REJECTED)


def _write_report(path: str, folder: str, description: DatasetDescription, result: Inspection, limits: Limits) -> None:
    """Writes the page and prints its name on standard error, because standard output may be JSON."""
    from components import files
    from components.data_report.contents import collect
    from components.data_report.render import render

    with progress_bar("drawing pictures") as on_progress:
        contents = collect(folder, description, result, limits, on_progress)
    # A file name need not be UTF-8.
    files.write_bytes(path, render(contents).encode(errors="replace"))
    say(f"report in {path}", stderr=True)


def _print_inspection(result: Inspection) -> None:
    say(f"{result.root}: layout {result.description}\n")
    lists = ("sizes", "sequences")
    overview = table("split", "pairs", "quarantined", *lists, right=("pairs", "quarantined"), fold=lists)
    for name, split in result.splits.items():
        sizes = [f"{height}x{width} ({count})" for (height, width), count in split.sizes.items()]
        sequences = [f"{sequence} ({count})" for sequence, count in split.sequences.items()]
        quarantined = sum(split.quarantined.values())
        overview.add_row(name, str(split.pairs), str(quarantined), _first(sizes, 3), _first(sequences, 6))
    say(overview)
    say()
    say(_class_fractions(result))
    for warning in result.warnings:
        say(Text("warning", "yellow"), warning)
    for issue in result.issues[:_ISSUES_SHOWN]:
        explanation = f"{issue.file}: found {issue.found}, expected {issue.expected}; {issue.action}"
        say(Text(issue.reason, "red"), explanation)
    if len(result.issues) > _ISSUES_SHOWN:
        say(f"... and {len(result.issues) - _ISSUES_SHOWN} more issues; --json lists them all")


def _first(texts: list[str], count: int) -> str:
    return ", ".join(texts[:count]) + (f" and {len(texts) - count} more" if len(texts) > count else "")


def _class_fractions(result: Inspection) -> Table:
    """Returns the fraction of pixels and the number of instances of each class, a column for each split."""
    with_instances = {name: split for name, split in result.splits.items() if split.class_instances}
    numbers = [*(f"pixels in {name}" for name in result.splits), *(f"instances in {name}" for name in with_instances)]
    classes = table("class", *numbers, right=numbers, fold=numbers)
    for index, class_name in enumerate(result.class_names):
        fractions = [f"{split.class_fractions[index]:.2%}" for split in result.splits.values()]
        # Only things have instances.
        counts = [str(split.class_instances[index] or "") for split in with_instances.values()]
        classes.add_row(class_name, *fractions, *counts)
    return classes
