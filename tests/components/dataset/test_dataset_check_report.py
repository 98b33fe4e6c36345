"""The page of a data check: its content, the size of its pictures, and no external resources."""

from __future__ import annotations

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH, encode, random_image
from PIL import Image

from components.class_map import ClassMap
from components.data_report import contents, thumbnails
from components.data_report.contents import choose_samples, collect, rarest_classes, spread
from components.data_report.render import render
from components.dataset.inspection import inspect
from components.dataset.pairs import EMPTY, LABEL_OUTSIDE_MAP, MASK_MISSING, REASONS, UNDECODABLE, DataIssue

MAX_PAGE = 5_000_000  # bytes


def pictures(page: str) -> list[Image.Image]:
    """Decodes all pictures of a page, in its order; each must be a JPEG of a bounded size."""
    found = []
    for encoded in re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page):
        data = base64.b64decode(encoded)
        assert len(data) <= thumbnails.MAX_BYTES
        picture = Image.open(io.BytesIO(data))
        assert max(picture.size) <= thumbnails.MAX_SIDE
        found.append(picture)
    return found


def section(page: str, name: str) -> str:
    """Returns the HTML of one section, its white space collapsed."""
    return " ".join(re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)[0].split())


def text(page: str, name: str) -> str:
    """Returns the text of one section; tags become spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", section(page, name)).split())


def page_of(folder, description, **options) -> str:
    found = inspect(str(folder.root), description)
    return render(collect(str(folder.root), description, found, **options))


@pytest.fixture
def small(folder):
    """Two sequences in train, one pair in val, all sound."""
    for seed, name in enumerate(["a_1", "a_2", "b_1"]):
        folder.pair(f"train/images/{name}.png", f"train/masks/{name}.png", seed)
    folder.pair("val/images/c_1.png", "val/masks/c_1.png", 7, (HEIGHT * 2, WIDTH))
    return folder


def test_a_valid_folder_shows_counts_sizes_fractions_and_samples(small, tiny):
    page = page_of(small, tiny)

    assert "All pairs can be used" in text(page, "result")
    assert "Usable pairs 4 Issues 0 Images in two splits 0" in text(page, "result")
    counts = text(page, "counts")
    assert f"train 3 pairs Sequence Bar Pairs a 2 b 1 Width × height in pixels Bar Pairs {WIDTH} × {HEIGHT} 3" in counts
    assert f"{WIDTH} × {HEIGHT * 2} 1" in counts
    assert "Each pair is a sequence of its own." in counts
    assert re.search(r"road \d\d\D* % \d\d\D* % void \(not scored\)", text(page, "shares"))
    assert [name in text(page, "samples") for name in ("train/a_1", "train/a_2", "train/b_1", "val/c_1")] == [True] * 4
    assert "No issue was found." in text(page, "issues")
    # Image and mask of each pair, and of the only scored class.
    assert len(pictures(page)) == 2 * 4 + 2


def test_the_page_refers_to_nothing_outside_itself(small, tiny):
    page = page_of(small, tiny)

    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\(", page)
    # One line of the report's styles and one of the check's.
    assert "prefers-color-scheme: dark" in page
    assert ".issues { table-layout: fixed; }" in page


def test_masks_are_shown_in_the_colours_of_the_classes(folder, tiny):
    folder.save("train/images/a.png", random_image())
    folder.save("train/masks/a.png", Image.new("L", (WIDTH, HEIGHT), 0))

    mask = pictures(section(page_of(folder, tiny), "samples"))[1]

    assert np.abs(np.asarray(mask, np.int16) - tiny.classes[0].color).max() < 8  # JPEG rounds


def test_issues_are_listed_by_reason_with_a_picture_of_each_readable_file(small, tiny):
    small.save("train/images/lone.png", Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 30)))
    small.write("train/images/a_1.png", b"")
    small.write("train/images/a_2.png", b"<script>alert(1)</script>")
    small.save("train/masks/b_1.png", Image.new("L", (WIDTH, HEIGHT), 77))

    page = page_of(small, tiny)
    issues = text(page, "issues")

    assert "4 issues found" in text(page, "result")
    for reason in (MASK_MISSING, EMPTY, UNDECODABLE, LABEL_OUTSIDE_MAP):
        assert f"{reason} 1 file" in issues
    assert "train/images/a_1.png zero bytes a PNG or JPEG file copy the file again from its source" in issues
    assert "value 77 in 384 of 384 pixels" in issues
    unnamed, lone = pictures(section(page, "issues"))
    assert np.asarray(unnamed).min() == 255
    assert np.abs(np.asarray(lone, np.int16) - (200, 30, 30)).max() < 8
    assert "<script>alert" not in page
    assert "train 0 pairs, 4 issues" in text(page, "counts")
    assert "No usable pair." in text(page, "counts")


def test_named_values_of_a_mask_with_others_have_their_colours(tiny):
    values = np.array([[0, 1, 9]] * 8, np.uint8).repeat(8, axis=1)

    shown = thumbnails.bad_file(encode(Image.fromarray(values)), LABEL_OUTSIDE_MAP, tiny)

    assert np.asarray(shown)[0, ::8].tolist() == [[128, 64, 128], [0, 0, 0], [255, 255, 255]]


def test_a_dark_mask_is_shown_with_full_contrast_and_a_huge_file_not_at_all(tiny, monkeypatch):
    mask = encode(Image.fromarray(np.eye(16, dtype=np.uint8)))

    assert np.asarray(thumbnails.bad_file(mask, EMPTY, tiny)).max() == 255
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 16 * 16 - 1)
    assert thumbnails.bad_file(mask, EMPTY, tiny) is None


def test_an_image_in_two_splits_is_shown_from_both(small, tiny):
    small.save("val/images/copy.png", random_image(0))
    small.save("val/masks/copy.png", Image.new("L", (WIDTH, HEIGHT), 1))

    page = page_of(small, tiny)

    assert "1 image is in more than one split" in text(page, "duplicates")
    assert "train/a_1" in text(page, "duplicates")
    assert "val/copy" in text(page, "duplicates")
    first, first_mask, second, second_mask = map(np.asarray, pictures(section(page, "duplicates")))
    assert np.array_equal(first, second)
    assert not np.array_equal(first_mask, second_mask)


def test_near_duplicates_are_shown_side_by_side(small, tiny):
    pixels = np.asarray(random_image(0)).copy()
    pixels[0, 0] ^= 1
    small.save("val/images/near.png", Image.fromarray(pixels))
    small.save("val/masks/near.png", Image.new("L", (WIDTH, HEIGHT), 1))

    page = page_of(small, tiny)

    shown = text(page, "duplicates")
    assert "No image is in more than one split." in shown
    assert "Near duplicates 1 image " in shown
    assert shown.index("of 128 differ") < shown.index("train/a_1") < shown.index("val/near")
    assert len(pictures(section(page, "duplicates"))) == 4


def test_an_image_twice_in_one_split_is_not_a_duplicate_across_splits(small, tiny):
    small.save("train/images/copy.png", random_image(0))
    small.save("train/masks/copy.png", Image.new("L", (WIDTH, HEIGHT), 1))

    assert text(page_of(small, tiny), "duplicates").endswith(
        "No image is in more than one split. Near duplicates 0 images"
        " No image is nearly the same as one of another split."
    )


def test_the_most_frequent_issues_come_first(small, tiny):
    small.write("train/images/a_1.png", b"")
    for name in ("a_2", "b_1"):
        small.write(f"train/images/{name}.png", b"text")

    issues = text(page_of(small, tiny), "issues")

    assert issues.index(f"{UNDECODABLE} 2 files") < issues.index(f"{EMPTY} 1 file")


def test_the_largest_sequences_are_listed_and_the_others_counted(folder, tiny):
    for sequence in range(14):
        for frame in range(2):
            name = f"{sequence:02}_{frame}"
            folder.pair(f"train/images/{name}.png", f"train/masks/{name}.png", 2 * sequence + frame)

    counts = text(page_of(folder, tiny), "counts")

    assert "11 2 and 2 more sequences" in counts
    assert "12 2" not in counts


def test_a_rare_class_is_shown_in_the_pair_with_most_of_it(folder, tiny):
    for name, pixels in (("few", 1), ("most", 9), ("none", 0)):
        mask = np.ones((HEIGHT, WIDTH), np.uint8)
        mask.ravel()[:pixels] = 0
        folder.save(f"train/images/{name}.png", random_image(pixels))
        folder.save(f"train/masks/{name}.png", Image.fromarray(mask))
    found = inspect(str(folder.root), tiny)

    ((index, fraction, pairs, record),) = rarest_classes(found, tiny.class_map)

    assert (index, pairs, record.pair.name) == (0, 2, "most")
    assert fraction == pytest.approx(10 / (3 * HEIGHT * WIDTH))
    both_scored = ClassMap(tiny.class_map.names, tiny.class_map.colors, None)
    assert [row[0] for row in rarest_classes(found, both_scored)] == [0, 1]
    assert "in 2 pairs train/most" in text(page_of(folder, tiny), "rare")


def test_a_class_that_no_pair_shows_is_named(folder, tiny):
    folder.save("train/images/a.png", random_image())
    folder.save("train/masks/a.png", Image.new("L", (WIDTH, HEIGHT), 1))

    assert "road 0 % of the pixels, in 0 pairs No pair shows it." in text(
        page_of(folder, tiny).replace("\N{NARROW NO-BREAK SPACE}", " "), "rare"
    )


def test_a_single_pixel_of_a_large_mask_is_marked():
    mask = np.zeros((700, 1000), np.uint8)
    mask[333, 777] = 3

    marked = np.asarray(thumbnails.highlight(Image.new("RGB", (320, 224)), mask, 3))

    assert (marked == thumbnails.HIGHLIGHT).all(axis=-1).any()


@pytest.mark.parametrize("size", [(1000, 700), (320, 320), (8, 9000), (9000, 8)])
def test_even_noise_fits_the_size_of_a_picture(size):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))

    (picture,) = pictures(f'<img src="{thumbnails.jpeg_address(noise)}"')

    assert picture.width > 0


def test_samples_come_from_every_sequence_and_are_few(folder, tiny):
    for sequence in range(5):
        for frame in range(4):
            folder.pair(
                f"train/images/{sequence}_{frame}.png", f"train/masks/{sequence}_{frame}.png", 10 * sequence + frame
            )
    found = inspect(str(folder.root), tiny)

    chosen = choose_samples(found, "train")

    assert [record.pair.name for record in chosen] == [
        f"{sequence}_{frame}" for sequence in range(5) for frame in (1, 3)
    ]
    assert len(chosen) <= contents.SAMPLES_PER_SPLIT


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [5]), (3, [1, 5, 8]), (20, list(range(10)))])
def test_items_are_taken_at_even_distances(count, expected):
    assert spread(range(10), count) == expected


def test_a_pair_that_was_damaged_since_the_check_is_left_out(small, tiny):
    found = inspect(str(small.root), tiny)
    small.write("val/masks/c_1.png", b"")

    drawn = collect(str(small.root), tiny, found)
    shown = section(render(drawn), "samples")

    assert [pair.name for pair, marked in drawn.examples if marked is None] == ["a_1", "a_2", "b_1"]
    assert [name in shown for name in ("train/b_1", "val/c_1")] == [True, False]


def test_progress_ends_at_the_number_of_pairs_and_files_drawn(small, tiny):
    small.write("train/images/lone.png", b"")
    calls = []

    page_of(small, tiny, on_progress=lambda done, total: calls.append((done, total)))

    assert calls == [(done, 6) for done in range(1, 7)]


def test_the_page_stays_below_its_limit_whatever_the_data_set(folder, tiny):
    for split in ("train", "val"):
        for seed in range(20):
            folder.pair(f"{split}/images/{seed}.png", f"{split}/masks/{seed}.png", seed, (330, 330))
    found = inspect(str(folder.root), tiny)
    file = "train/images/0.png"
    issues = [
        DataIssue("train", f"{number}", file, reason, "x" * 5000, "y" * 5000, "z" * 5000)
        for reason in REASONS
        for number in range(100)
    ]
    worst = dataclasses.replace(found, issues=tuple(issues), warnings=("w" * 5000,) * 1000)

    page = render(collect(str(folder.root), tiny, worst))

    assert f"{len(issues):,} issues found" in text(page, "result")
    assert "and 994 more, which the command prints" in text(page, "result")
    assert "100 files, the first 20 are listed" in text(page, "issues")
    assert len(pictures(page)) == 2 * 24 + 2 + 4 * contents.DUPLICATES + len(REASONS) * contents.PICTURES_PER_REASON
    assert len(page.encode()) < MAX_PAGE
