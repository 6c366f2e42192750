"""What a learning rule is, and the one step that trains with any of them."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, Num

from pcbook.core.arguments import checked
from pcbook.core.checks import check_arrays, check_labels
from pcbook.core.pickling import picklable


class Rule(NamedTuple):
    """A learning rule.

    `init(key, params)` makes the state: synapses that the rule has beside the network's,
    `()` where there are none. `gradient(params, state, x, y, key)` returns the mean loss
    of a batch, the update that an optimiser descends, shaped as `params`, and the new
    state; `y` is (batch, n_L). `predict(params, x)` is the output, (batch, n_L).
    `follow(state, params, change)`, where there is one, returns the state as the optimiser adds
    `change` to `params`: so synapses that follow the weights learn at the rate of the weights.
    """

    name: str
    init: Callable[..., Any]
    gradient: Callable[..., tuple[Array, Any, Any]]
    predict: Callable[..., Array]
    follow: Callable[..., Any] | None = None


def stateless(key, params) -> tuple:
    """The `init` of a rule that has no synapses of its own."""
    return ()


@checked
def accuracy(
    predict: Callable[..., Array],
    params: Any,
    x: Num[Array, "n ..."],
    y: Int[Array, "n ..."],
) -> Float[Array, ""]:
    """Share of the samples whose largest output is the label `y`; chance is 1 / classes.

    NaN if an output is NaN. Raises ValueError for labels that are not those of an output, or
    of another shape.
    """
    output = predict(params, x)
    _check_shape("y", y, output.shape[:-1])
    check_labels(output.shape[-1], y=y)
    share = (output.argmax(-1) == y).mean()
    return jnp.where(jnp.isnan(output).any(), jnp.nan, share)


def _check_shape(name: str, array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}: must be {shape}, as the output has it")


@checked
def r_squared(
    predict: Callable[..., Array],
    params: Any,
    x: Num[Array, "n ..."],
    y: Float[Array, "n ..."],
) -> Float[Array, ""]:
    """Share of the variance of the targets `y` that is predicted: 1 is all, 0 that of the mean.

    1 - sum (y - mu)^2 / sum (y - mean y)^2 over samples and outputs. It is not finite for
    targets that are all the same. Raises ValueError for targets of another shape.
    """
    output = predict(params, x)
    _check_shape("y", y, output.shape)
    left = ((y - output) ** 2).sum()
    return 1 - left / ((y - y.mean(0)) ** 2).sum()


def default_metric(answers) -> Callable[..., Array]:
    """Accuracy for integer labels, R squared for other targets."""
    return accuracy if jnp.issubdtype(answers.dtype, jnp.integer) else r_squared


@checked
def step(
    gradient: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    follow: Callable[..., Any] | None = None,
) -> Callable:
    """The step that every training in the book takes: `step(carry, batch) -> carry, loss`.

    `gradient` and `follow` are those of a rule. `carry` is (params, state of the rule, state of
    the optimiser), as `begin` makes it, and `batch` is (x, y, key): a function to scan. An
    optimiser that asks for the loss, or for a function to search along, is given them.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def learn_from(carry, batch):
        params, state, memory = carry
        loss, update, new = gradient(params, state, *batch)
        change, memory = optimizer.update(
            update,
            memory,
            params,
            value=loss,
            grad=update,
            value_fn=lambda params: gradient(params, state, *batch)[0],
        )
        new = new if follow is None else follow(new, params, change)
        return (optax.apply_updates(params, change), new, memory), loss

    return learn_from


@checked
def begin(
    rule: Rule, optimizer: optax.GradientTransformation, params: Any, key: Key[Array, ""]
) -> tuple[Any, Any, Any]:
    """What `step` starts from: (params, state of the rule, state of the optimiser)."""
    check_arrays("params", params)
    return params, rule.init(key, params), optimizer.init(params)


def epoch(rule, optimizer, batch_size, carry, x, y, key):
    """Learn from every batch of the shuffled pairs (x, y) once: the new carry, the losses."""
    shuffle_key, key = random.split(key)
    batches = len(x) // batch_size
    order = random.permutation(shuffle_key, len(x))[: batches * batch_size]

    def batch(carry, drawn):
        rows, key = drawn
        return learn_from(carry, (x[rows], y[rows], key))

    learn_from = step(rule.gradient, optimizer, rule.follow)
    each = (order.reshape(batches, batch_size), random.split(key, batches))
    return jax.lax.scan(batch, carry, each)


@checked
def verify(rule: Rule, params: Any, x: Any, y: Any, key: Key[Array, ""]) -> Float[Array, ""]:
    """Check what a rule returns on a batch; degrees from its update to the slope of its loss.

    At 0 it is backprop, below 90 a small step lowers the loss. Raises ValueError for a loss that
    is not one real number, for an update or a state of other shapes than before, for a
    prediction of another shape than `y`, and for numbers that are not finite.

    >>> import jax
    >>> from pcbook import backprop, network, rules
    >>> key = jax.random.key(0)
    >>> x, y = jax.random.normal(key, (5, 3)), jax.numpy.ones((5, 2))
    >>> f"{rules.verify(backprop.rule(), network.init(key, (3, 2)), x, y, key):.1f} degrees"
    '0.0 degrees'
    """
    state = rule.init(random.fold_in(key, 0), params)
    returned = rule.gradient(params, state, x, y, key)
    if not isinstance(returned, tuple) or len(returned) != 3:
        raise ValueError(f"gradient returned {type(returned).__name__}: must be three values")
    loss, update, after = returned
    kinds = [
        ("loss", loss, jnp.zeros((), jnp.result_type(float))),
        ("update", update, params),
        ("state", after, state),
        ("prediction", rule.predict(params, x), y),
    ]
    for name, found, model in kinds:
        shapes, expected = (jax.tree.map(jnp.shape, tree) for tree in (found, model))
        if shapes != expected:
            raise ValueError(f"{name} has shape {shapes}: must be {expected}")
        if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
            raise ValueError(f"{name} holds numbers that are not finite: all must be")
    slope = jax.grad(lambda params: rule.gradient(params, state, x, y, key)[0])(params)
    return angle(update, slope)


@checked
@cache
@picklable
def without_biases(rule: Rule) -> Rule:
    """The same rule with an update of zero for biases, so that those of a new network stay zero.

    An optimiser that decays weights decays biases that are not zero.
    """

    def gradient(*arguments):
        loss, update, state = rule.gradient(*arguments)
        still = jax.tree.map(jnp.zeros_like, [layer.b for layer in update])
        return loss, [layer._replace(b=b) for layer, b in zip(update, still)], state

    return rule._replace(gradient=gradient)


@checked
def angle(update: Any, other: Any) -> Float[Array, ""]:
    """Degrees between two updates: 0 the same direction, 90 nothing in common, 180 opposite.

    NaN if one of them is zero. Raises ValueError for updates that differ in shape.
    """
    shapes, others = (jax.tree.map(jnp.shape, tree) for tree in (update, other))
    if shapes != others:
        raise ValueError(f"other has the shapes {others}: must be those of update, {shapes}")
    a, b = (u / jnp.linalg.norm(u) for u, _ in map(ravel_pytree, (update, other)))
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))
