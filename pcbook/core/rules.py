"""What a learning rule is, and the one loop that trains with any of them.

A rule is a pair of pure functions, in the manner of optax:

    state = init(key, params)                                       synapses of its own
    loss, update, state = gradient(params, state, x, y, key)        as jax.value_and_grad

Backprop, feedback alignment, predictive coding: each is one of these, so `fit` trains
them all, `compare` puts them into one table, and nothing but the rule changes.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.special import stdtrit
from tqdm import tqdm

from pcbook.core.checks import check_count, check_number, lookup
from pcbook.core.cost import products
from pcbook.core.models import Model
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
    carry = begin(rule, optimizer, params, init_key)
    carry = jax.tree.map(jnp.copy, carry)  # an epoch donates its buffers, which may be shared
    rows = []
    for epoch_key in tqdm(random.split(key, epochs), desc=rule.name, unit="epoch", leave=False):
        carry, loss = _jitted_epoch(
            rule.gradient, optimizer, batch_size, carry, dataset.x_train, y, epoch_key
        )
        test = _jitted_accuracy(rule.predict, carry[0], dataset.x_test, dataset.y_test)
        rows.append((loss, test))
    return Fit(carry[0], carry[1], History(*np.array(rows).T))


def step(gradient: Callable[..., Any], optimizer: optax.GradientTransformation) -> Callable:
    """The step that every training in the book takes: `step(carry, batch) -> carry, loss`.

    `gradient` is that of a rule. `carry` is (params, state of the rule, state of the
    optimiser), as `begin` makes it, and `batch` is (x, y, key): a function to scan.
    """

    def learn_from(carry, batch):
        params, state, memory = carry
        loss, update, state = gradient(params, state, *batch)
        update, memory = optimizer.update(update, memory, params)
        return (optax.apply_updates(params, update), state, memory), loss

    return learn_from


def begin(rule: Rule, optimizer: optax.GradientTransformation, params, key: Key[Array, ""]):
    """What `step` starts from: (params, state of the rule, state of the optimiser)."""
    return params, rule.init(key, params), optimizer.init(params)


def _epoch(gradient, optimizer, batch_size, carry, x, y, key):
    """Learn from every batch of the shuffled pairs (x, y) once: the new carry, the mean loss."""
    shuffle_key, key = random.split(key)
    batches = len(x) // batch_size
    order = random.permutation(shuffle_key, len(x))[: batches * batch_size]

    def batch(carry, drawn):
        rows, key = drawn
        return learn_from(carry, (x[rows], y[rows], key))

    learn_from = step(gradient, optimizer)
    each = (order.reshape(batches, batch_size), random.split(key, batches))
    carry, losses = jax.lax.scan(batch, carry, each)
    return carry, losses.mean()


_jitted_epoch = jax.jit(_epoch, static_argnums=(0, 1, 2), donate_argnums=3)
_jitted_accuracy = jax.jit(accuracy, static_argnames="predict")


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
        carry, _ = jax.lax.scan(step(rule.gradient, optimizer), carry, batches)
        return carry, watch(carry[0])

    carry = begin(rule, optimizer, params, init_key)
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
    check_count(epochs=epochs)
    check_number(
        f"1 to {images}, the number of images to train on",
        lambda value: isinstance(value, Integral) and 1 <= value <= images,
        batch_size=batch_size,
    )
    classes = jax.eval_shape(rule.predict, params, dataset.x_train[:1]).shape[-1]
    for name in ("y_train", "y_test"):
        if (largest := getattr(dataset, name).max()) >= classes:
            raise ValueError(
                f"{name} holds the label {largest}: must be 0 to {classes - 1}, one for each output"
            )
    return classes


class Comparison(NamedTuple):
    """What every rule reached at every learning rate, from every seed.

    `validation` and `test` are accuracies from 0 to 1 after each epoch, NaN from the epoch on
    in which a training diverged. `work` is what an update of each rule costs, in
    multiplications of its matrix products. A training is judged at its best epoch, which the
    validation accuracy chooses; `patience` is for how many epochs it must not have improved
    since, for its curve to count as a plateau.
    """

    names: tuple[str, ...]
    rates: tuple[float, ...]
    validation: Float[np.ndarray, "rules rates seeds epochs"]
    test: Float[np.ndarray, "rules rates seeds epochs"]
    work: Float[np.ndarray, " rules"]
    updates: int  # in an epoch
    patience: int

    @property
    def diverged(self) -> Bool[np.ndarray, "rules rates seeds"]:
        """Which trainings ended in numbers that are not finite."""
        return np.isnan(self.validation[..., -1])

    @property
    def epoch(self) -> Int[np.ndarray, "rules rates seeds"]:
        """The epoch, from 0, at which the validation accuracy of each training is highest."""
        return np.nan_to_num(self.validation, nan=-1).argmax(-1)

    @property
    def plateau(self) -> Bool[np.ndarray, "rules rates seeds"]:
        """Whether training went on for `patience` epochs without improving."""
        return self.epoch + self.patience < self.validation.shape[-1]

    @property
    def best(self) -> Int[np.ndarray, " rules"]:
        """Which rate each rule prefers: that of the highest mean validation accuracy.

        A rate at which a seed diverged comes after all others.
        """
        highest = np.where(self.diverged, -np.inf, np.nan_to_num(self.validation).max(-1))
        return highest.mean(-1).argmax(1)

    @property
    def on_edge(self) -> Bool[np.ndarray, " rules"]:
        """Whether the best rate is the first or last of the grid: a better one may lie beyond."""
        return (self.best == 0) | (self.best == len(self.rates) - 1)

    @property
    def final(self) -> Float[np.ndarray, "rules rates seeds"]:
        """Test accuracy at the epoch that the validation accuracy chose; NaN if it diverged."""
        chosen = np.take_along_axis(self.test, self.epoch[..., None], -1)[..., 0]
        return np.where(self.diverged, np.nan, chosen)

    def curves(self) -> Float[np.ndarray, "rules seeds epochs"]:
        """Test accuracy of each rule at its best rate."""
        return self.test[np.arange(len(self.names)), self.best]

    def reached(self) -> Float[np.ndarray, "rules seeds"]:
        """Test accuracy of each rule at its best rate and each seed's best epoch."""
        return self.final[np.arange(len(self.names)), self.best]

    def difference(self, rule: str, other: str, level: float = 0.95) -> "Interval":
        """How much more accurate one rule is than another: paired over seeds, by Student's t.

        Raises ValueError for a name that was not compared.
        """
        rows = dict(zip(self.names, self.reached()))
        return interval(lookup(rows, rule=rule) - lookup(rows, other=other), level)

    def table(self) -> str:
        """Test accuracy in %, mean over seeds, at every rate; * marks the best rate.

        For the best rate: mean ± standard deviation over seeds, the updates that its best epoch
        took, and the products of these updates, in multiples of the first rule's.
        """
        width = max(map(len, self.names))
        rates = "".join(f"{rate:>9g}" for rate in self.rates)
        lines = [f"{'':{width}}{rates}   best rate, mean ± sd   updates   products"]
        took = (1 + self.epoch[np.arange(len(self.names)), self.best].mean(1)) * self.updates
        products = took * self.work
        for row, (name, percent, best) in enumerate(zip(self.names, 100 * self.final, self.best)):
            means = ("diverged" if np.isnan(p).any() else f"{p.mean():.1f}" for p in percent)
            cells = "".join(f"{m:>8}{'*' if i == best else ' '}" for i, m in enumerate(means))
            lines.append(
                f"{name:{width}}{cells}   {_spread(percent[best]):>20}{took[row]:>10.0f}"
                f"{products[row] / products[0]:>11.2f}"
            )
        return "\n".join([*lines, *self.warnings()])

    def warnings(self) -> list[str]:
        """What a reader must know before believing the comparison, a sentence each."""
        found = []
        for row, (name, best) in enumerate(zip(self.names, self.best)):
            if self.on_edge[row]:
                found.append(
                    f"{name}: the best rate, {self.rates[best]:g}, lies on the edge of the grid"
                )
            if not (self.plateau | self.diverged)[row, best].all():
                found.append(
                    f"{name}: still improving within the last {self.patience} of "
                    f"{self.validation.shape[-1]} epochs"
                )
        return found

    def plot(self, ax) -> None:
        """Draw the test accuracy in % against epochs: the mean over seeds, and their range."""
        epochs = np.arange(1, self.test.shape[-1] + 1)
        for name, curves in zip(self.names, 100 * self.curves()):
            (line,) = ax.plot(epochs, curves.mean(0), label=name)
            ax.fill_between(epochs, curves.min(0), curves.max(0), color=line.get_color(), alpha=0.2)
        ax.set(xlabel="epoch", ylabel="test accuracy (%)")
        ax.legend()


class Interval(NamedTuple):
    """A mean over `n` seeds, with its confidence interval and standard deviation (ddof = 1)."""

    mean: float
    low: float
    high: float
    sd: float
    n: int


def interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> Interval:
    """The mean of `values` with its interval by Student's t at the confidence `level`.

    Raises ValueError for fewer than two values or a level outside (0, 1).
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 2:
        raise ValueError(f"values has {n} entries: must be at least 2")
    check_number("between 0 and 1", lambda value: 0 < value < 1, level=level)
    mean, sd = values.mean(), values.std(ddof=1)
    half = stdtrit(n - 1, (1 + level) / 2) * sd / np.sqrt(n)
    return Interval(float(mean), float(mean - half), float(mean + half), float(sd), n)


def exceeds(values: Float[np.ndarray, " n"], least: float | int) -> bool:
    """Whether the mean of `values` is above `least` and above two standard errors of the mean."""
    found = interval(values)
    return bool(found.mean > max(least, 2 * found.sd / np.sqrt(found.n)))


def _spread(values) -> str:
    """Mean ± standard deviation (ddof = 1); of a single value, the value."""
    if np.isnan(values).any():
        return "diverged"
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def compare(
    rules: Sequence[Rule],
    model: Model,
    dataset: Dataset,
    *,
    rates: Sequence[float],
    seeds: int = 5,
    optimizer: Callable[[float], optax.GradientTransformation] = optax.adam,
    epochs: int = 10,
    batch_size: int = 32,
    patience: int = 3,
    key: Key[Array, ""],
) -> Comparison:
    """Train a model by every rule, at every learning rate, from several seeds.

    Every rule starts from the same weights and sees the same batches. Each seed holds out
    a fifth of the training images, which choose the rate and the epoch: the test images
    choose nothing. Warns (RuntimeWarning) if a best rate lies on the edge of the grid, and if
    a training at the best rate was still improving within the last `patience` epochs.
    Raises ValueError where `fit` does, and for no rules, no rates or seeds, or a rate <= 0.
    """
    if not rules:
        raise ValueError(f"rules = {rules}: must be at least one rule")
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"rates = {rates}: must be one or more positive numbers")
    check_count(seeds=seeds, patience=patience)
    kept = len(dataset.x_train) - len(dataset.x_train) // 5
    shape = jax.eval_shape(model.init, key)
    classes = _check(rules[0], shape, dataset, epochs, batch_size, kept)
    data = jax.tree.map(
        jnp.asarray, (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)
    )
    grid, keys = jnp.array(rates, jnp.float32), random.split(key, seeds)
    results = []
    for rule in tqdm(rules, desc="rules", leave=False):
        results.append(_grid(grid, keys, data, rule, model, optimizer, epochs, batch_size, classes))
    validation, test = (np.stack(part) for part in zip(*results))
    example = (data[0][:batch_size], jax.nn.one_hot(data[1][:batch_size], classes))
    work = [_work(rule, model, example, key) for rule in rules]
    found = Comparison(
        tuple(rule.name for rule in rules),
        tuple(rates),
        validation,
        test,
        np.array(work, float),
        kept // batch_size,
        patience,
    )
    for warning in found.warnings():
        warnings.warn(warning, RuntimeWarning, stacklevel=2)
    return found


def _work(rule, model, example, key) -> int:
    """Multiplications in the matrix products of one update, measured on a new network."""
    params = model.init(key)
    return products(rule.gradient, params, rule.init(key, params), *example, key)


@partial(
    jax.jit,
    static_argnames=("rule", "model", "optimizer", "epochs", "batch_size", "classes"),
)
def _grid(rates, keys, data, rule, model, optimizer, epochs, batch_size, classes):
    """Accuracies (rates, seeds, epochs) on held-out and on test images."""

    def run(rate, key):
        return _run(rule, model, optimizer(rate), epochs, batch_size, classes, data, key)

    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))(rates, keys)


def _run(rule, model, optimizer, epochs, batch_size, classes, data, key):
    """One training: the accuracy on held-out and on test images after every epoch."""
    x, labels, x_test, y_test = data
    split_key, param_key, state_key, key = random.split(key, 4)
    held_out, rest = jnp.split(random.permutation(split_key, len(x)), [len(x) // 5])
    y = jax.nn.one_hot(labels, classes)

    def judge(params, x, labels):
        finite = jnp.stack([jnp.isfinite(p).all() for p in jax.tree.leaves(params)]).all()
        return jnp.where(finite, accuracy(rule.predict, params, x, labels), jnp.nan)

    def epoch(carry, key):
        carry, _ = _epoch(rule.gradient, optimizer, batch_size, carry, x[rest], y[rest], key)
        validation = judge(carry[0], x[held_out], labels[held_out])
        return carry, (validation, judge(carry[0], x_test, y_test))

    carry = begin(rule, optimizer, model.init(param_key), state_key)
    return jax.lax.scan(epoch, carry, random.split(key, epochs))[1]


def angle(update, other) -> Float[Array, ""]:
    """Degrees between two updates: 0 the same direction, 90 nothing in common, 180 opposite."""
    a, b = (u / jnp.linalg.norm(u) for u, _ in map(ravel_pytree, (update, other)))
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))
