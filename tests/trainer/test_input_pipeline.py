import itertools

import numpy as np
import pytest
import tensorflow as tf
import training_toy as toy

from components.errors import UsageError
from trainer import input_pipeline
from trainer.decoded import DecodedSplit
from trainer.padding import PADDING
from trainer.sharding import WHOLE, Sharding


def numbered(examples: int = 10, sharding: Sharding = WHOLE) -> DecodedSplit:
    """Returns pairs whose pixels and labels are the pair's number."""
    numbers = np.arange(examples, dtype=np.uint8)
    masks = np.tile(numbers[:, None, None], (1, *toy.SIZE))
    owners = np.arange(examples) % sharding.replicas
    own = np.isin(owners, sharding.own)
    images = np.repeat(masks[..., None], 3, axis=-1)
    return DecodedSplit(images[own], masks[own], owners[own], sharding)


def steps_of(
    split: DecodedSplit, epochs: range = range(1), batch_size: int = 4, steps: int = 3, seed: int = 3, skip: int = 0
) -> list[list[int]]:
    """Returns the numbers of the pairs of each batch."""
    data = input_pipeline.training_batches(split, batch_size, steps, epochs, seed, skip)
    return [masks[:, 0, 0].tolist() for _, masks, _ in data.as_numpy_iterator()]


def test_images_and_masks_come_in_pairs_and_types():
    data = input_pipeline.training_batches(numbered(), 4, 3, range(1), 3)

    images, masks, seed = next(data.as_numpy_iterator())

    assert (images.shape, images.dtype) == ((4, *toy.SIZE, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((4, *toy.SIZE), np.uint8)
    assert (seed.shape, seed.dtype) == ((2,), np.int64)
    np.testing.assert_array_equal(images[..., 0], masks)
    assert data.element_spec[0].shape == (4, *toy.SIZE, 3)


def test_every_epoch_holds_every_pair_and_fills_its_last_batch_with_its_first():
    steps = steps_of(numbered(), range(3))

    epochs = [[*itertools.chain(*steps[start : start + 3])] for start in (0, 3, 6)]
    assert {len(step) for step in steps} == {4}
    assert [sorted(epoch[:10]) for epoch in epochs] == [list(range(10))] * 3
    assert [epoch[10:] for epoch in epochs] == [epoch[:2] for epoch in epochs]
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_split_smaller_than_a_batch_is_repeated_within_it():
    ((step),) = steps_of(numbered(3), batch_size=8, steps=1)

    assert step == [*step[:3], *step[:3], *step[:2]]
    assert sorted(step[:3]) == [0, 1, 2]


def test_a_resumed_training_gets_the_batches_of_an_uninterrupted_one():
    unbroken = steps_of(numbered(), range(4))

    assert steps_of(numbered(), range(2, 4)) == unbroken[6:]
    assert steps_of(numbered(), range(2, 4), skip=2) == unbroken[8:]
    assert steps_of(numbered(), range(4), seed=4) != unbroken


@pytest.mark.parametrize(("processes", "devices"), [(1, 2), (2, 1), (2, 2)])
def test_each_device_has_its_shard_whatever_process_it_belongs_to(processes, devices):
    by_process = [steps_of(numbered(13, Sharding(i, processes, devices)), steps=4) for i in range(processes)]

    replicas = processes * devices
    alone = steps_of(numbered(13, Sharding(0, 1, replicas)), steps=4)
    by_device = [
        [step for turn, step in enumerate(steps) if turn % devices == device]
        for steps in by_process
        for device in range(devices)
    ]
    assert by_device == [alone[device::replicas] for device in range(replicas)]
    assert [{n for step in steps for n in step} for steps in by_device] == [
        set(range(13)[device::replicas]) for device in range(replicas)
    ]


def test_every_batch_has_a_seed_of_its_own():
    def seeds(split: DecodedSplit, epochs: range) -> list[tuple[int, int]]:
        data = input_pipeline.training_batches(split, 4, 3, epochs, 7)
        return [tuple(seed.tolist()) for _, _, seed in data.as_numpy_iterator()]

    both = [seeds(numbered(10, Sharding(i, processes=2)), range(2)) for i in range(2)]

    assert len({*both[0], *both[1]}) == 12
    assert seeds(numbered(10, Sharding(0, processes=2)), range(1, 2)) == both[0][3:]


@pytest.fixture
def set_global_seed():
    """Sets TensorFlow's global seed, and restores it after the test."""
    yield tf.random.set_seed
    tf.random.set_seed(None)


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1, -1])
def test_the_order_depends_only_on_the_given_seed(set_global_seed, seed):
    orders = []
    for global_seed in (0, 5):
        set_global_seed(global_seed)
        orders.append(steps_of(numbered(), batch_size=10, steps=1, seed=seed)[0])

    assert sorted(orders[0]) == list(range(10))
    assert orders[0] == orders[1]


def test_evaluation_keeps_the_stored_order_and_fills_up_with_padding():
    images, masks = zip(*input_pipeline.evaluation_batches(numbered(), 4, 3).as_numpy_iterator(), strict=True)

    numbers = np.concatenate(masks)[:, 0, 0]
    assert (masks[0].dtype, images[0].dtype) == (np.int32, np.uint8)
    assert numbers.tolist() == [*range(10), PADDING, PADDING]
    np.testing.assert_array_equal(np.concatenate(images)[:10, 0, 0, 0], numbers[:10])


def test_workers_evaluate_their_shards_in_the_same_number_of_steps():
    parts = [
        [
            masks[:, 0, 0].tolist()
            for _, masks in input_pipeline.evaluation_batches(
                numbered(9, Sharding(index, processes=2)), 4, 2
            ).as_numpy_iterator()
        ]
        for index in range(2)
    ]

    assert parts == [[[0, 2, 4, 6], [8, *[PADDING] * 3]], [[1, 3, 5, 7], [PADDING] * 4]]


def test_steps_take_every_example():
    assert [input_pipeline.steps(examples, batch_size=4) for examples in (1, 4, 5)] == [1, 1, 2]


def test_patterns_without_a_file_are_named(tmp_path):
    with pytest.raises(UsageError, match="no file matches"):
        input_pipeline.find_files([str(tmp_path / "*")])


def test_samples_are_spread_over_the_split():
    _, masks = input_pipeline.sample(numbered(), 3)

    assert masks[:, 0, 0].tolist() == [0, 3, 6]


def test_a_sample_larger_than_the_split_is_the_whole_split():
    images, _ = input_pipeline.sample(numbered(1), 3)

    assert len(images) == 1
