"""What a learning rule is, and the one step that trains with any of them."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key


class Rule(NamedTuple):
    """A learning rule.

    `init(key, params)` makes the state: synapses that the rule has beside the network's,
    `()` where there are none. `gradient(params, state, x, y, key)` returns the mean loss
    of a batch, the update that an optimiser descends, shaped as `params`, and the new
    state; `y` is (batch, n_L). `predict(params, x)` is the output, (batch, n_L).
    `follow(state, change)`, where there is one, returns the state after the optimiser has added
    `change` to the parameters: so a rule whose synapses follow the weights learns at their rate.
    """

    name: str
    init: Callable[..., Any]
    gradient: Callable[..., tuple[Array, Any, Any]]
    predict: Callable[..., Array]
    follow: Callable[..., Any] | None = None


def stateless(key, params) -> tuple:
    """The `init` of a rule that has no synapses of its own."""
    return ()


def accuracy(
    predict: Callable[..., Array], params, x: Float[Array, "n ..."], y: Int[Array, " n ..."]
) -> Float[Array, ""]:
    """Share of the samples whose largest output is the label `y`; chance is 1 / classes."""
    return (predict(params, x).argmax(-1) == y).mean()


def r_squared(
    predict: Callable[..., Array], params, x: Float[Array, "n ..."], y: Float[Array, "n ..."]
) -> Float[Array, ""]:
    """Share of the variance of the targets `y` that is predicted: 1 is all, 0 that of the mean.

    1 - sum (y - mu)^2 / sum (y - mean y)^2 over samples and outputs. It is not finite for
    targets that are all the same.
    """
    left = ((y - predict(params, x)) ** 2).sum()
    return 1 - left / ((y - y.mean(0)) ** 2).sum()


def default_metric(answers) -> Callable[..., Array]:
    """Accuracy for integer labels, R squared for other targets."""
    return accuracy if jnp.issubdtype(answers.dtype, jnp.integer) else r_squared


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
        new = new if follow is None else follow(new, change)
        return (optax.apply_updates(params, change), new, memory), loss

    return learn_from


def begin(rule: Rule, optimizer: optax.GradientTransformation, params, key: Key[Array, ""]):
    """What `step` starts from: (params, state of the rule, state of the optimiser)."""
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


@cache
def without_biases(rule: Rule) -> Rule:
    """The same rule, except that it leaves biases as they are: at zero, in a new network."""

    def gradient(*arguments):
        loss, update, state = rule.gradient(*arguments)
        return loss, [layer._replace(b=jnp.zeros_like(layer.b)) for layer in update], state

    return rule._replace(gradient=gradient)


def angle(update, other) -> Float[Array, ""]:
    """Degrees between two updates: 0 the same direction, 90 nothing in common, 180 opposite.

    NaN if one of them is zero. Raises ValueError for updates that differ in shape.
    """
    shapes, others = (jax.tree.map(jnp.shape, tree) for tree in (update, other))
    if shapes != others:
        raise ValueError(f"other has the shapes {others}: must be those of update, {shapes}")
    a, b = (u / jnp.linalg.norm(u) for u, _ in map(ravel_pytree, (update, other)))
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))
