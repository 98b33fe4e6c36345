import pytest
import tensorflow as tf

from trainer.compiled_step import CompiledStep

ALONE = tf.distribute.get_strategy()


def counter() -> tf.Variable:
    return tf.Variable(0.0)


def own_records(caplog) -> list:
    """Returns segpipe's log records only: TensorFlow logs warnings about retracing if many tests ran before."""
    return [record for record in caplog.records if record.name.startswith("segpipe")]


def python_step(total: tf.Variable):
    """Returns a step that XLA cannot compile: it calls Python."""

    def step(value: tf.Tensor) -> None:
        total.assign_add(tf.ensure_shape(tf.numpy_function(lambda x: x, [value], tf.float32), []))

    return step


@pytest.mark.parametrize("xla", [False, True])
def test_a_step_takes_the_parts_of_a_batch(xla, caplog):
    total = counter()

    def step(a: tf.Tensor, b: tf.Tensor) -> None:
        total.assign_add(a * b)

    run = CompiledStep(step, ALONE, xla, "training")
    run((tf.constant(2.0), tf.constant(3.0)))
    run((tf.constant(1.0), tf.constant(1.0)))

    assert float(total) == 7
    assert own_records(caplog) == []


def test_a_step_that_xla_cannot_compile_runs_without_xla_and_warns_once(caplog):
    total = counter()
    run = CompiledStep(python_step(total), ALONE, True, "training")

    run((tf.constant(2.0),))
    run((tf.constant(3.0),))

    assert float(total) == 5
    (record,) = own_records(caplog)
    assert "XLA cannot compile the training step, so it runs without XLA (" in record.message
    assert record.message.endswith("set training.xla=off to skip the attempt")


def test_an_error_that_is_not_xla_s_is_raised():
    total = counter()

    def step(value: tf.Tensor) -> None:
        with tf.control_dependencies([tf.debugging.assert_positive(value, "not positive")]):
            total.assign_add(value)

    for xla, first in ((False, -1.0), (False, 1.0)):
        run = CompiledStep(step, ALONE, xla, "training")
        if first > 0:
            run((tf.constant(first),))
        with pytest.raises(tf.errors.InvalidArgumentError, match="not positive"):
            run((tf.constant(-1.0),))
