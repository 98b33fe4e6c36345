"""The page holds every part of the report with its numbers, needs nothing from outside, and escapes what it shows."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from components.class_map import ClassMap
from components.metrics.object_sizes import SizeScore
from components.metrics.threshold_check import ThresholdCheck
from components.report.data import RelatedRun, ReportData, SequenceScore, Verdict
from components.report.render import render

SECTIONS = {
    "verdict", "classes", "thresholds", "confusion", "frames", "calibration", "sizes",
    "training", "sequences", "shares", "data", "timings", "lineage",
}  # fmt: skip
VOID_ELEMENTS = {"meta", "link", "img", "br", "input", "hr"}
CELLS = {"td", "th", "dt", "dd", "li"}
SVG_LEAVES = {"rect", "path", "circle", "polyline"}


class Page(HTMLParser):
    """Collects a page's text by section and its attributes, and checks that elements nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in VOID_ELEMENTS:
            return
        section = dict(attrs).get("id") if tag == "section" else None
        if section:
            self.sections[section] = ""
        self._open.append((tag, section))

    def handle_startendtag(self, tag, attrs):
        assert tag in SVG_LEAVES
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag
        if tag in CELLS:
            self.handle_data(" ")

    def handle_data(self, data):
        for _, section in self._open:
            if section:
                self.sections[section] += data

    def text(self, section: str) -> str:
        return " ".join(self.sections[section].split())

    def values(self, name: str, tag: str | None = None) -> list[str]:
        return [value for t, n, value in self.attributes if n == name and tag in (None, t)]


def test_full_report_shows_every_section_with_its_numbers(report):
    page = Page(render(report))

    assert set(page.sections) == SECTIONS
    assert "Blessed and pushed" in page.text("verdict")
    assert "All 3 thresholds are met" in page.text("verdict")
    assert "/srv/serving/fcn8/1732183200" in page.text("verdict")
    assert "0.613 +0.031 from 0.581" in page.text("verdict")
    assert "pedestrian 0.149 0.117 +0.031" in page.text("classes")
    assert "0.259 0.227 +0.031" in page.text("classes")
    assert "void" not in page.text("classes")
    assert "IoU of pedestrian 0.100 0.149 +0.049 met" in page.text("thresholds")
    assert "IoU of road, change from the baseline −0.050 +0.031 +0.081 met" in page.text("thresholds")
    assert "75 % of pedestrian is predicted as road" in page.text("confusion")
    assert "0016E5_07979" in page.text("frames")
    assert "Chosen among 101 frames of split val" in page.text("frames")
    assert "3 epochs" in page.text("training")
    assert "resumed at epoch 2" in page.text("training")
    assert "Seq05VD 0.411" in page.text("sequences")
    assert "31 %" in page.text("shares")
    assert "train 1,365 3 undecodable 2, mask missing 1" in page.text("data")
    assert "All 1,466 3" in page.text("data")
    assert "First 1 quarantined files" in page.text("data")
    assert "Trainer 18 min 23 s" in page.text("timings")
    assert "ImageMaskExampleGen 0.2 s cached" in page.text("timings")
    assert "Evaluator 22 s failed" in page.text("timings")
    assert "fcn8 of execution 12" in page.text("lineage")
    assert "learning_rate: 0.0004" in page.text("lineage")


def test_baseline_and_version_before_are_named_and_linked(report):
    related = {
        "baseline_run": RelatedRun("20251101-unet", 1761955200, "../20251101-unet/report.html"),
        "predecessor": RelatedRun("20251102-unet", 1762041600),
    }
    page = Page(render(dataclasses.replace(report, lineage=dataclasses.replace(report.lineage, **related))))

    text = page.text("lineage")
    assert "fcn8 of execution 12, run 20251101-unet, version 1761955200" in text
    assert "Version before run 20251102-unet, version 1762041600" in text
    addresses = [address for address in page.values("href", "a") if not address.startswith("#")]
    assert addresses == ["../20251101-unet/report.html"] * 2  # in the header and in the lineage


def test_the_time_of_a_report_is_readable(report):
    earlier = dataclasses.replace(report.lineage, created="2025-11-21 10:23 UTC")

    for data in (report, dataclasses.replace(report, lineage=earlier)):
        assert "Created 2025-11-21 10:23 UTC" in Page(render(data)).text("lineage")


def test_scores_that_do_not_gate_are_shown(report):
    page = Page(render(report))

    assert "Boundary IoU" in page.text("classes")
    assert "road 0.442 0.411 +0.031" in page.text("classes")
    assert "Mean boundary IoU 0.406 (+0.031)" in page.text("verdict")
    assert "Expected calibration error 0.035:" in page.text("calibration")
    assert "40,75.00 91.23,20.00" in page.values("points", "polyline")
    assert "0.667 4,000 0.400 0.250" in page.text("calibration")
    assert "pedestrian 0.121 207 0.457 3 – 0" in page.text("sizes")
    assert "sky" not in page.text("sizes")
    assert "All 0.123 210 0.568 1,044 – 0" in page.text("sizes")


def test_a_report_of_an_earlier_version_names_missing_scores(minimal_report):
    page = Page(render(minimal_report))

    assert "Boundary IoU" not in page.text("classes")
    assert "No confidence was recorded" in page.text("calibration")
    assert "No scores by object size were recorded" in page.text("sizes")


def test_classes_without_objects_have_no_table_of_sizes(report):
    nothing = dict.fromkeys(("small", "medium", "large"), SizeScore(0, 0, None))
    data = dataclasses.replace(report, object_sizes=nothing, class_object_sizes={"sky": nothing, "road": nothing})

    assert "No scores by object size were recorded" in Page(render(data)).text("sizes")


def test_splits_that_differ_in_case_are_listed_apart(report):
    data = dataclasses.replace(report, examples={"train": 10, "Train": 3})

    text = Page(render(data)).text("data")

    assert "train 10 3" in text
    assert "Train 3 0" in text


def test_intervals_are_shown_with_scores_and_changes(report):
    data = dataclasses.replace(
        report,
        intervals={**report.intervals, "mean_iou": (0.5871, 0.6402)},
        change_intervals={**report.change_intervals, "mean_iou": (-0.0014, 0.0602)},
    )

    page = Page(render(data))

    assert "0.613 +0.031 from 0.581 95 % interval 0.587 to 0.640; of the change −0.001 to +0.060" in page.text(
        "verdict"
    )
    assert "sky 0.913 0.901 to 0.923 0.882 +0.031 −0.012 to +0.075" in page.text("classes")
    assert "paired on the same images" in page.text("classes")
    assert "95 %" not in Page(render(dataclasses.replace(report, intervals={}, change_intervals={}))).text("classes")


def test_a_drop_that_is_not_significant_is_marked(report):
    gate = ThresholdCheck("mean_iou", "change", -0.02, -0.031, True, (-0.0712, 0.0104), 0.0)
    data = dataclasses.replace(report, verdict=Verdict(blessed=True, gates=(gate,)))

    page = Page(render(data))

    assert "−0.020 −0.031 −0.071 to +0.010 +0.020 met drop not significant" in page.text("thresholds")
    assert "with 0.020 to spare" in page.text("verdict")


def test_only_the_worst_of_many_sequences_are_shown(report):
    sequences = tuple(SequenceScore(f"{index:05}", index / 100) for index in range(21))

    shown = Page(render(dataclasses.replace(report, sequences=sequences))).text("sequences")

    assert "The 20 worst of 21 sequences" in shown
    assert "00019" in shown
    assert "00020" not in shown


def test_bars_are_as_long_as_the_scores(report):
    page = Page(render(report))

    assert "14.86%" in page.values("width", "rect")
    assert "11.74%" in page.values("width", "rect")


def test_confusion_cells_have_their_counts_as_tooltips(report):
    titles = Page(render(report)).values("title", "td")

    assert "pedestrian predicted as road: 150 pixels, 75\N{NARROW NO-BREAK SPACE}% of pedestrian" in titles
    assert "road predicted as road: 1,960 pixels, 98\N{NARROW NO-BREAK SPACE}% of road" in titles
    assert len(titles) == 25


def test_absent_class_is_named_absent(report):
    page = Page(render(report))

    assert "traffic light / sign symbol absent" in page.text("classes")
    assert "counts in no mean" in page.text("classes")
    assert "nan" not in " ".join(page.sections.values())


def test_failed_gate_names_threshold_and_amount(report):
    gates = (
        ThresholdCheck("class_iou/pedestrian", "value", 0.2, 0.1486, False),
        ThresholdCheck("class_iou/road", "change", -0.05, -0.0712, False),
        ThresholdCheck("mean_iou", "value", 0.4, 0.6126, True),
    )
    data = dataclasses.replace(report, verdict=Verdict(blessed=False, gates=gates))

    page = Page(render(data))

    assert "Not blessed" in page.text("verdict")
    assert "IoU of pedestrian is 0.149, 0.051 below its minimum of 0.200; 1 more threshold is missed." in page.text(
        "verdict"
    )
    assert "Serving from" not in page.text("verdict")
    assert re.search(
        r"pedestrian 0\.200 0\.149 −0\.051 missed .*road.* −0\.021 missed .*Mean IoU", page.text("thresholds")
    )
    assert any("bad" in value.split() for value in page.values("class", "section"))


def test_a_drop_against_the_baseline_is_described_as_a_change(report):
    gate = ThresholdCheck("class_iou/road", "change", -0.05, -0.0712, False)
    data = dataclasses.replace(report, verdict=Verdict(blessed=False, gates=(gate,)))

    text = Page(render(data)).text("verdict")

    assert "IoU of road changed by −0.071 against the baseline, 0.021 below the −0.050 allowed." in text


def test_undefined_gate_fails_with_a_reason(report):
    gate = ThresholdCheck("class_iou/pedestrian", "value", 0.2, float("nan"), False)
    data = dataclasses.replace(report, verdict=Verdict(blessed=False, gates=(gate,)))

    assert "IoU of pedestrian is undefined" in Page(render(data)).text("verdict")


def test_minimal_report_names_missing_parts(minimal_report):
    page = Page(render(minimal_report))

    assert set(page.sections) == SECTIONS
    assert "Blessed, not pushed" in page.text("verdict")
    assert "no baseline" in page.text("classes")
    for section in SECTIONS - {"verdict", "classes", "lineage"}:
        assert re.search(r"\b(No|Timings are in the run's own report)\b", page.text(section)), section


def test_report_survives_json_before_it_is_drawn(report):
    assert render(ReportData.from_json(report.to_json())) == render(report)


def test_timings_can_be_added_later(report, minimal_report):
    page = Page(render(dataclasses.replace(minimal_report, timings=report.timings)))

    assert "18 min 45 s in all, 18 min 23 s of it in Trainer; 1 of 3 components came from the cache." in page.text(
        "timings"
    )


@pytest.mark.parametrize("which", ["report", "minimal_report"])
def test_page_needs_nothing_from_outside(which, request):
    html = render(request.getfixturevalue(which))

    page = Page(html)

    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "url(" not in html
    for name in ("src", "href"):
        assert all(value.startswith(("data:", "#")) for value in page.values(name))


def test_names_are_escaped(report):
    attack = '<script>alert("x")</script>'
    class_map = ClassMap((attack, *report.class_map.names[1:]), report.class_map.colors, 4)
    frames = tuple(dataclasses.replace(frame, name=attack, sequence=attack) for frame in report.frames)
    rows = tuple({**row, "name": attack, "found": attack} for row in report.quarantine_rows)
    lineage = dataclasses.replace(report.lineage, run_id=attack, configuration={attack: attack})
    data = dataclasses.replace(
        report, model=attack, class_map=class_map, frames=frames, quarantine_rows=rows, lineage=lineage
    )

    html = render(data)

    assert attack not in html
    assert html.count("<script>") == 1
    assert attack in Page(html).text("frames")


def test_every_picture_has_a_text_alternative(report):
    page = Page(render(report))

    alternatives = page.values("alt", "img")
    assert "Prediction of frame 0016E5_07979" in alternatives
    assert len(page.values("src", "img")) == 12


def test_a_frame_with_depth_shows_it(report):
    url = report.frames[0].image
    frame = dataclasses.replace(report.frames[0], depth_truth=url, depth_prediction=url, depth_error=url)
    page = Page(render(dataclasses.replace(report, frames=(frame, *report.frames[1:]))))

    alternatives = [text for text in page.values("alt", "img") if "depth" in text.lower()]
    assert alternatives == [
        f"{kind} of frame {frame.name}" for kind in ("True depth", "Estimated depth", "Error of depth")
    ]
    assert "near" in page.text("frames")
    assert "near" not in Page(render(report)).text("frames")


def test_anchors_lead_to_sections(report):
    page = Page(render(report))

    anchors = {value.removeprefix("#") for value in page.values("href", "a")}
    assert anchors == SECTIONS


def test_without_an_ignored_class_nothing_is_called_unscored(report):
    data = dataclasses.replace(report, class_map=dataclasses.replace(report.class_map, ignore_index=None))

    html = render(data)

    assert "not scored" not in html


def test_both_splits_and_their_gap_are_shown_by_class(report):
    selection = {"mean_iou": 0.6626, "class_iou/sky": 0.9034, "class_iou/road": 0.8, "class_iou/pedestrian": None}
    page = render(dataclasses.replace(report, gate_split="test", selection_split="val", selection_scores=selection))

    rows = re.findall(
        r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page.split('id="gaps-title"')[1].split("</table>")[0]
    )
    cells = {re.sub("<.*?>", "", name): re.findall(r'<td class="number[^"]*">(.*?)</td>', row) for name, row in rows}
    assert cells == {
        "sky": ["0.913", "0.903", "−0.010"],
        "road": ["0.776", "0.800", "+0.024"],
        "pedestrian": ["0.149", "absent", ""],
        "traffic light / sign symbol": ["absent", "absent", ""],
        "mean": ["0.613", "0.663", "+0.050"],
    }
    assert "on split test" in page
    assert "The gate uses split test, which selected nothing." in page


def test_one_split_has_no_table_of_gaps(report):
    page = render(dataclasses.replace(report, selection_split="val"))

    assert "gaps-title" not in page
    assert "also selected the epoch" in page
