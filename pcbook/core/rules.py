"""What a learning rule is, and the one loop that trains with any of them.

A rule is a pair of pure functions, in the manner of optax:

    state = init(key, params)                                       synapses of its own
    loss, update, state = gradient(params, state, x, y, key)        as jax.value_and_grad

Backprop, feedback alignment, predictive coding: each is one of these, so `fit` trains
them all, `compare` puts them into one table, and nothing but the rule changes.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from pcbook.core import network
from pcbook.store.data import Dataset


class Rule(NamedTuple):
    """A learning rule.

    `init(key, params)` makes the state: synapses that the rule has beside the network's,
    `()` where there are none. `gradient(params, state, x, y, key)` returns the mean loss
    of a batch, the update that an optimiser descends, shaped as `params`, and the new
    state; `y` is (batch, n_L). `predict(params, x)` is the output, (batch, n_L).
    """

    name: str
    init: Callable[..., Any]
    gradient: Callable[..., tuple[Array, Any, Any]]
    predict: Callable[..., Array]


class History(NamedTuple):
    """Mean training loss and test accuracy (0 to 1) after each epoch."""

    loss: Float[np.ndarray, " epochs"]
    accuracy: Float[np.ndarray, " epochs"]


class Fit(NamedTuple):
    """What training leaves behind."""

    params: Any
    state: Any
    history: History


def stateless(key, params) -> tuple:
    """The `init` of a rule that has no synapses of its own."""
    return ()


def accuracy(
    predict: Callable[..., Array], params, x: Float[Array, "n pixels"], y: Int[Array, " n"]
) -> Float[Array, ""]:
    """Share of the images `x` whose largest output is the label `y`; chance is 1 / classes."""
    return (predict(params, x).argmax(-1) == y).mean()


def fit(
    rule: Rule,
    params,
    dataset: Dataset,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    key: Key[Array, ""],
) -> Fit:
    """Train `params` with a rule, an optax optimiser and shuffled mini-batches.

    The images that do not fill the last batch of an epoch sit that epoch out. `params`
    is left as it was. Raises ValueError for epochs or batch_size that do not fit, images
    that are not as wide as the input and labels without an output.
    """
    classes = _check(rule, params, dataset, epochs, batch_size, len(dataset.x_train))
    y = jax.nn.one_hot(dataset.y_train, classes)
    init_key, key = random.split(key)
    carry = (params, rule.init(init_key, params), optimizer.init(params))
    carry = jax.tree.map(jnp.copy, carry)  # an epoch donates its buffers, which may be shared
    rows = []
    for epoch_key in tqdm(random.split(key, epochs), desc=rule.name, unit="epoch", leave=False):
        carry, loss = epoch(
            rule.gradient, optimizer, batch_size, carry, dataset.x_train, y, epoch_key
        )
        test = _jitted_accuracy(rule.predict, carry[0], dataset.x_test, dataset.y_test)
        rows.append((loss, test))
    return Fit(carry[0], carry[1], History(*np.array(rows).T))


def _epoch(gradient, optimizer, batch_size, carry, x, y, key):
    """Learn from every batch of the shuffled pairs (x, y) once.

    `carry` is (params, state of the rule, state of the optimiser), donated: the new one is
    returned, with the mean loss.
    """
    shuffle_key, key = random.split(key)
    batches = len(x) // batch_size
    order = random.permutation(shuffle_key, len(x))[: batches * batch_size]
    step = _step(gradient, optimizer)

    def batch(carry, drawn):
        rows, key = drawn
        return step(carry, (x[rows], y[rows], key))

    each = (order.reshape(batches, batch_size), random.split(key, batches))
    carry, losses = jax.lax.scan(batch, carry, each)
    return carry, losses.mean()


def _step(gradient, optimizer):
    """What one batch (x, y, key) does to (params, state of the rule, state of the optimiser)."""

    def step(carry, batch):
        params, state, memory = carry
        loss, update, state = gradient(params, state, *batch)
        update, memory = optimizer.update(update, memory, params)
        return (optax.apply_updates(params, update), state, memory), loss

    return step


epoch = jax.jit(_epoch, static_argnums=(0, 1, 2), donate_argnums=3)
_jitted_accuracy = jax.jit(accuracy, static_argnums=0)


def learn(
    rule: Rule,
    params,
    x: Float[Array, "batches batch n_0"],
    y: Float[Array, "batches batch n_L"],
    *,
    optimizer: optax.GradientTransformation,
    watch: Callable[..., Any],
    every: int,
    key: Key[Array, ""],
) -> tuple[Any, Any]:
    """Learn from batches in the order in which they come, and watch.

    Returns the parameters, and what `watch(params)` saw before the first batch and after
    each `every` of them, stacked. For worlds that change: `jax.vmap` lives many lives at once.
    Raises ValueError unless `every` divides the number of batches.
    """
    if every < 1 or len(x) % every:
        raise ValueError(f"every = {every}: must divide {len(x)}, the number of batches")
    init_key, key = random.split(key)
    batches = (x, y, random.split(key, len(x)))
    blocks = jax.tree.map(lambda a: a.reshape(len(x) // every, every, *a.shape[1:]), batches)

    def block(carry, batches):
        carry, _ = jax.lax.scan(_step(rule.gradient, optimizer), carry, batches)
        return carry, watch(carry[0])

    carry = (params, rule.init(init_key, params), optimizer.init(params))
    first = watch(params)
    carry, seen = jax.lax.scan(block, carry, blocks)
    return carry[0], jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, seen)


@cache
def without_biases(rule: Rule) -> Rule:
    """The same rule, except that it leaves biases as they are: at zero, in a new network."""

    def gradient(*arguments):
        loss, update, state = rule.gradient(*arguments)
        return loss, [layer._replace(b=jnp.zeros_like(layer.b)) for layer in update], state

    return rule._replace(gradient=gradient)


def _check(rule, params, dataset, epochs, batch_size, images):
    """The number of outputs, once everything fits."""
    if epochs < 1:
        raise ValueError(f"epochs = {epochs}: must be at least 1")
    if not 1 <= batch_size <= images:
        raise ValueError(
            f"batch_size = {batch_size}: must be 1 to {images}, the number of images to train on"
        )
    classes = jax.eval_shape(rule.predict, params, dataset.x_train[:1]).shape[1]
    for name in ("y_train", "y_test"):
        if (largest := getattr(dataset, name).max()) >= classes:
            raise ValueError(
                f"{name} holds the label {largest}: must be 0 to {classes - 1}, one for each output"
            )
    return classes


class Comparison(NamedTuple):
    """Accuracy of every rule at every learning rate, seed and epoch.

    `validation` and `test` are (rules, rates, seeds, epochs), from 0 to 1.
    """

    names: tuple[str, ...]
    rates: tuple[float, ...]
    validation: Float[np.ndarray, "rules rates seeds epochs"]
    test: Float[np.ndarray, "rules rates seeds epochs"]

    @property
    def best(self) -> Int[np.ndarray, " rules"]:
        """Which rate each rule prefers: that of the highest final validation accuracy."""
        return self.validation[..., -1].mean(-1).argmax(1)

    def curves(self) -> Float[np.ndarray, "rules seeds epochs"]:
        """Test accuracy of each rule at its best rate."""
        return self.test[np.arange(len(self.names)), self.best]

    def table(self) -> str:
        """Final test accuracy in %, mean over seeds, at every rate; * marks the best rate."""
        width = max(map(len, self.names))
        rates = "".join(f"{rate:>9g}" for rate in self.rates)
        lines = [f"{'':{width}}{rates}   best rate (mean ± sd over seeds)"]
        for name, percent, best in zip(self.names, 100 * self.test[..., -1], self.best):
            marks = ("*" if i == best else " " for i in range(len(percent)))
            cells = "".join(f"{p:>8.1f}{mark}" for p, mark in zip(percent.mean(1), marks))
            chosen = percent[best]
            lines.append(f"{name:{width}}{cells}   {chosen.mean():.1f} ± {chosen.std():.1f}")
        return "\n".join(lines)

    def plot(self, ax) -> None:
        """Draw the test accuracy in % against epochs: the mean over seeds, and their range."""
        epochs = np.arange(1, self.test.shape[-1] + 1)
        for name, curves in zip(self.names, 100 * self.curves()):
            (line,) = ax.plot(epochs, curves.mean(0), label=name)
            ax.fill_between(epochs, curves.min(0), curves.max(0), color=line.get_color(), alpha=0.2)
        ax.set(xlabel="epoch", ylabel="test accuracy (%)")
        ax.legend()


def compare(
    rules: Sequence[Rule],
    sizes: Sequence[int],
    dataset: Dataset,
    *,
    rates: Sequence[float],
    seeds: int = 5,
    optimizer: Callable[[float], optax.GradientTransformation] = optax.adam,
    epochs: int = 10,
    batch_size: int = 32,
    key: Key[Array, ""],
) -> Comparison:
    """Train networks of `sizes` by every rule, at every learning rate, from several seeds.

    Every rule starts from the same weights and sees the same batches. Each seed holds out
    a fifth of the training images, which choose the rate: the test images choose nothing.
    Raises ValueError where `fit` does, and for no rules, no rates or seeds, or a rate <= 0.
    """
    if not rules:
        raise ValueError(f"rules = {rules}: must be at least one rule")
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"rates = {rates}: must be one or more positive numbers")
    if seeds < 1:
        raise ValueError(f"seeds = {seeds}: must be at least 1")
    grid, keys = jnp.array(rates, jnp.float32), random.split(key, seeds)
    results = []
    for rule in tqdm(rules, desc="rules", leave=False):
        run = partial(_run, rule, tuple(sizes), dataset, optimizer, epochs, batch_size)
        results.append(jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(grid, keys))
    validation, test = (np.stack(part) for part in zip(*results))
    return Comparison(tuple(rule.name for rule in rules), tuple(rates), validation, test)


def _run(rule, sizes, dataset, optimizer, epochs, batch_size, rate, key):
    """One training: the accuracy on held-out and on test images after every epoch."""
    split_key, param_key, state_key, key = random.split(key, 4)
    params = network.init(param_key, sizes)
    x, labels = jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)
    x_test, y_test = jnp.asarray(dataset.x_test), jnp.asarray(dataset.y_test)
    held_out, rest = jnp.split(random.permutation(split_key, len(x)), [len(x) // 5])
    classes = _check(rule, params, dataset, epochs, batch_size, len(rest))
    y, step_size = jax.nn.one_hot(labels, classes), optimizer(rate)

    def epoch(carry, key):
        carry, _ = _epoch(rule.gradient, step_size, batch_size, carry, x[rest], y[rest], key)
        validation = accuracy(rule.predict, carry[0], x[held_out], labels[held_out])
        return carry, (validation, accuracy(rule.predict, carry[0], x_test, y_test))

    carry = (params, rule.init(state_key, params), step_size.init(params))
    return jax.lax.scan(epoch, carry, random.split(key, epochs))[1]


def angle(update, other) -> Float[Array, ""]:
    """Degrees between two updates: 0 the same direction, 90 nothing in common, 180 opposite."""
    a, b = (u / jnp.linalg.norm(u) for u, _ in map(ravel_pytree, (update, other)))
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))
