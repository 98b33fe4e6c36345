import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import training_toy as toy

from components.errors import DataRejectedError, UsageError
from trainer import input_pipeline
from trainer.share import ALL, Share


def write_numbered(directory: pathlib.Path, examples: int) -> str:
    """Writes pairs whose pixels and labels are the pair's number."""
    pairs = [(np.full((*toy.SIZE, 3), i, np.uint8), np.full(toy.SIZE, i, np.uint8)) for i in range(examples)]
    return toy.write_records(directory / "numbered.gz", pairs)


@pytest.fixture
def numbered(tmp_path) -> str:
    """Ten numbered pairs."""
    return write_numbered(tmp_path, 10)


def order(dataset: tf.data.Dataset) -> list[int]:
    return [int(mask[0, 0]) for _, masks in dataset.as_numpy_iterator() for mask in masks]


def batches(file: str, epochs: range, seed: int = 3, augment: input_pipeline.Augmentation | None = None):
    return input_pipeline.training_batches([file], toy.SIZE, 4, 10, epochs, seed, augment)


def test_images_and_masks_come_in_pairs_and_types(numbered):
    images, masks = next(batches(numbered, range(1)).as_numpy_iterator())

    assert (images.shape, images.dtype) == ((4, *toy.SIZE, 3), np.float32)
    assert (masks.shape, masks.dtype) == ((4, *toy.SIZE), np.uint8)
    np.testing.assert_array_equal(images[:, 0, 0, 0], masks[:, 0, 0])


def test_every_epoch_holds_every_pair_once_in_an_order_of_its_own(numbered):
    seen = order(batches(numbered, range(3)))

    epochs = [seen[:10], seen[10:20], seen[20:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_resumed_training_sees_the_order_of_an_unbroken_one(numbered):
    unbroken = order(batches(numbered, range(4)))

    assert order(batches(numbered, range(2, 4))) == unbroken[20:]
    assert order(batches(numbered, range(4), seed=4)) != unbroken


def test_augmentation_gets_a_seed_of_its_own_for_each_pair_and_epoch(numbered):
    def show_seed(image, mask, seed):
        return tf.cast(seed, tf.int64), mask

    seeds = np.concatenate([s for s, _ in batches(numbered, range(2), augment=show_seed).as_numpy_iterator()])

    assert len({tuple(seed) for seed in seeds}) == 20


def steps_of(
    share: Share, file: str, batch_size: int, epochs: int = 2, skip: int = 0, examples: int = 10
) -> list[list]:
    """Returns, for each step, what each device of a process takes: lists of the pairs' numbers."""
    dataset = input_pipeline.training_batches(
        [file], toy.SIZE, batch_size, examples, range(epochs), 3, None, share, skip
    )
    taken = [masks[:, 0, 0].tolist() for _, masks in dataset.as_numpy_iterator()]
    return [taken[i : i + share.devices] for i in range(0, len(taken), share.devices)]


@pytest.mark.parametrize(
    ("processes", "devices", "batch_size"), [(2, 1, 4), (1, 2, 4), (2, 2, 2), (1, 4, 2), (4, 1, 2)]
)
def test_devices_share_the_steps_of_a_single_one(tmp_path, processes, devices, batch_size):
    file = write_numbered(tmp_path, 13)
    single = [step[0] for step in steps_of(ALL, file, batch_size=8, examples=13)]

    shares = [Share(index, processes, devices) for index in range(processes)]
    by_process = [steps_of(share, file, batch_size, examples=13) for share in shares]

    # Each step's parts, one a device.
    steps = [list(itertools.chain.from_iterable(parts)) for parts in zip(*by_process, strict=True)]
    assert [sorted(itertools.chain.from_iterable(parts)) for parts in steps] == [sorted(step) for step in single]
    assert all(max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in steps)


def test_no_device_gets_an_empty_batch(numbered):
    shares = [Share(index, processes=3) for index in range(3)]

    by_process = [steps_of(share, numbered, batch_size=3, epochs=1) for share in shares]

    # Ten examples are a step of nine and one, for which three devices are too many.
    assert shares[0].steps(10, batch_size=3) == 1
    assert [[len(step[0]) for step in process] for process in by_process] == [[4], [3], [3]]
    assert ALL.steps(10, batch_size=9) == 2


def test_no_step_has_fewer_images_than_the_least(tmp_path):
    def sizes(share: Share, examples: int) -> list[int]:
        folder = tmp_path / str(examples)
        folder.mkdir(exist_ok=True)
        steps = steps_of(share, write_numbered(folder, examples), 4, epochs=1, examples=examples)
        assert len(steps) == share.steps(examples, batch_size=4)
        return [len(step[0]) for step in steps]

    assert (sizes(ALL, 5), sizes(Share(least=2), 5)) == ([4, 1], [5])
    assert (sizes(ALL, 9), sizes(Share(least=2), 9)) == ([4, 4, 1], [4, 5])
    assert sizes(ALL, 6) == sizes(Share(least=2), 6) == [4, 2]
    assert sizes(Share(least=4), 7) == [7]
    assert Share(least=2).steps(1, batch_size=4) == 0


def test_all_of_every_epoch_is_taken_where_a_step_must_not_be_small(tmp_path):
    file, share = write_numbered(tmp_path, 9), Share(least=2)

    steps = steps_of(share, file, batch_size=4, epochs=2, examples=9)

    assert [sorted(steps[i][0] + steps[i + 1][0]) for i in (0, 2)] == [list(range(9))] * 2
    assert steps_of(share, file, batch_size=4, epochs=2, skip=1, examples=9) == steps[1:]


@pytest.fixture
def set_global_seed():
    """Sets TensorFlow's global seed, as a training does with its own, and takes it back."""
    yield tf.random.set_seed
    tf.random.set_seed(None)


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_any_seed_gives_an_order_and_the_global_one_has_no_part_in_it(numbered, set_global_seed, seed):
    orders = []
    for global_seed in (seed, 0, 5):
        set_global_seed(global_seed)
        data = input_pipeline.training_batches([numbered], toy.SIZE, 10, 10, range(1), seed, None)
        ((_, masks),) = data.as_numpy_iterator()
        orders.append(masks[:, 0, 0].tolist())

    assert sorted(orders[0]) == list(range(10))
    assert orders[0] == orders[1] == orders[2]


def test_steps_already_made_are_left_out(numbered):
    for share in (ALL, Share(1, 2, 1)):
        assert steps_of(share, numbered, batch_size=2, skip=2) == steps_of(share, numbered, batch_size=2)[2:]


def test_the_augmentation_of_a_pair_does_not_depend_on_who_reads_it(numbered):
    def show_seed(image, mask, seed):
        return tf.cast(seed, tf.int64), mask

    def seeds(share: Share) -> dict[int, tuple]:
        data = input_pipeline.training_batches([numbered], toy.SIZE, 2, 10, range(1), 3, show_seed, share)
        return {
            int(mask[0, 0]): tuple(seed)
            for seeds, masks in data.as_numpy_iterator()
            for seed, mask in zip(seeds, masks, strict=True)
        }

    halves = [seeds(Share(index, processes=2)) for index in range(2)]

    assert {**halves[0], **halves[1]} == seeds(ALL)


def test_windows_may_differ_from_the_images_in_size(numbered):
    def crop(image, mask, seed):
        return image[:16, :16], mask[:16, :16]

    images, masks = next(batches(numbered, range(1), augment=crop).as_numpy_iterator())

    assert (images.shape, masks.shape) == ((4, 16, 16, 3), (4, 16, 16))


def test_evaluation_keeps_the_stored_order(numbered):
    assert order(input_pipeline.evaluation_batches([numbered], toy.SIZE, 4, 10)) == list(range(10))


def test_workers_share_an_evaluation(numbered):
    parts = [
        order(input_pipeline.evaluation_batches([numbered], toy.SIZE, 2, 10, Share(index, processes=2)))
        for index in range(2)
    ]

    assert parts == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_counting_tells_examples_and_pixels_of_each_class(tmp_path):
    halves = np.zeros(toy.SIZE, np.uint8)
    halves[:, 24:] = 2
    blank = np.zeros((*toy.SIZE, 3), np.uint8)
    file = toy.write_records(tmp_path / "a.gz", [(blank, halves), (blank, np.zeros(toy.SIZE, np.uint8))])

    facts = input_pipeline.count([file], 4, "train")

    assert facts.examples == 2
    pixels = toy.SIZE[0] * toy.SIZE[1]
    assert facts.class_pixels.tolist() == [pixels * 3 // 2, 0, pixels // 2, 0]
    assert facts.present_pixels.tolist() == [pixels * 2, 0, pixels, 0]


def test_an_empty_split_is_named(tmp_path):
    file = toy.write_records(tmp_path / "empty.gz", [])

    with pytest.raises(DataRejectedError, match="split train: no examples"):
        input_pipeline.count([file], 4, "train")


def test_a_label_outside_the_class_map_is_named(numbered):
    with pytest.raises(DataRejectedError, match="split eval: masks hold label 4, expected 0 to 3"):
        input_pipeline.count([numbered], 4, "eval")


def test_patterns_without_a_file_are_named(tmp_path):
    with pytest.raises(UsageError, match="no file matches"):
        input_pipeline.find_files([str(tmp_path / "*")])


def test_samples_are_spread_over_the_split(numbered):
    _, masks = input_pipeline.sample([numbered], toy.SIZE, examples=10, number=3)

    assert masks[:, 0, 0].tolist() == [0, 3, 6]


def test_samples_of_a_split_smaller_than_wanted_are_all_of_it(tmp_path):
    file = toy.write_records(tmp_path / "one.gz", [toy.pair(np.random.default_rng(0))])

    images, _ = input_pipeline.sample([file], toy.SIZE, examples=1, number=3)

    assert len(images) == 1
