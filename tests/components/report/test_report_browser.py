"""The page in a real browser: it fits the width of a phone, and its script works."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tempfile
from html import escape
from pathlib import Path

import pytest

from components.report.render import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--hide-scrollbars",
    "--virtual-time-budget=5000",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium, which is not installed"),
]


def measure(html: str, expression: str, width: int, folder: Path) -> str:
    """Opens a page in a frame of a width in CSS pixels and returns what an expression over it gives."""
    # The minimum width of a headless window is wider than a phone, so the page is shown in a frame.
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "frame.html").write_text(
        f"""<!DOCTYPE html><meta charset="utf-8"><p id="result"></p>
        <iframe src="report.html" style="border:0;width:{width}px;height:900px"></iframe>
        <script>onload = () => {{
          const page = document.querySelector("iframe").contentWindow, root = page.document.documentElement;
          document.querySelector("#result").textContent = String({expression});
        }};</script>""",
        encoding="utf-8",
    )
    with tempfile.TemporaryDirectory() as profile:
        dom = subprocess.run(
            [str(BROWSER), *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", (folder / "frame.html").as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
    found = re.search(r'<p id="result">(.*?)</p>', dom)
    assert found, dom[:2000]
    return found.group(1)


@pytest.mark.parametrize("which", ["report", "minimal_report"])
@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_page_never_scrolls_sideways(which, width, request, tmp_path):
    html = render(request.getfixturevalue(which))

    assert measure(html, "root.scrollWidth + ' of ' + root.clientWidth", width, tmp_path) == f"{width} of {width}"


def test_no_table_cell_or_label_is_wider_than_its_section(report, tmp_path):
    outside = """[...page.document.querySelectorAll("main *")].filter((element) =>
        !element.closest(".scroll, .hidden, svg") && element.getBoundingClientRect().right > 375).length"""

    assert measure(render(report), outside, 375, tmp_path) == "0"


def test_wide_matrix_scrolls_in_its_own_box(report, tmp_path):
    names = tuple(f"a class with a long name, number {i}" for i in range(5))
    classes = dataclasses.replace(report.class_map, names=names)
    data = dataclasses.replace(report, class_map=classes, class_object_sizes={})
    scrolls = "page.document.querySelector('.heat').closest('.scroll').scrollWidth > 375 - 64"

    assert measure(render(data), scrolls, 375, tmp_path) == "true"
    assert measure(render(data), "root.scrollWidth", 375, tmp_path) == "375"


def test_frames_open_in_the_viewer_and_the_theme_switches(report, tmp_path):
    expression = """(page.document.querySelectorAll(".picture img")[5].click(),
        page.document.querySelector(".theme").click(),
        page.document.querySelector(".viewer").open + "; " + page.document.querySelector(".viewer-title").textContent
        + "; " + getComputedStyle(root).colorScheme)"""

    assert measure(render(report), expression, 375, tmp_path) == escape("true; Truth: 0016E5_08151; dark")
