"""Compare rules: every rule at every learning rate, from several seeds, in one table."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.special import stdtrit
from tqdm import tqdm

from pcbook.core.arguments import Allowed, Count, Finite, Positive, checked
from pcbook.core.checks import check_count, is_integer, lookup
from pcbook.core.cost import products
from pcbook.core.models import Model
from pcbook.core.rules.pairs import check_batch_size, read_dataset, read_pairs
from pcbook.core.rules.recording import Recording
from pcbook.core.rules.rule import Rule, begin, default_metric, epoch
from pcbook.store.data import Dataset


class Comparison(NamedTuple):
    """What every rule reached at every learning rate, from every seed.

    `validation` and `test` are scores after each epoch, by default accuracies from 0 to 1, NaN
    from the epoch on in which a training diverged; `loss` is the mean training loss. `work` is
    what an update of each rule costs, in multiplications of its matrix products. A training is
    judged at its best epoch, which the validation score chooses; `patience` is for how many
    epochs it must not have improved since, for its curve to count as a plateau. `params`, if
    they were asked for, are the last of each rule, with axes (rates, seeds) before their own.
    """

    names: tuple[str, ...]
    rates: tuple[float, ...]
    validation: Float[np.ndarray, "rules rates seeds epochs"]
    test: Float[np.ndarray, "rules rates seeds epochs"]
    loss: Float[np.ndarray, "rules rates seeds epochs"]
    work: Float[np.ndarray, " rules"]
    updates: int  # in an epoch
    patience: int
    params: tuple[Any, ...] | None = None

    @property
    def diverged(self) -> Bool[np.ndarray, "rules rates seeds"]:
        """Which trainings ended in numbers that are not finite."""
        return np.isnan(self.validation[..., -1])

    @property
    def epoch(self) -> Int[np.ndarray, "rules rates seeds"]:
        """The epoch, from 0, at which the validation score of each training is highest."""
        return np.nan_to_num(self.validation, nan=-np.inf).argmax(-1)

    @property
    def plateau(self) -> Bool[np.ndarray, "rules rates seeds"]:
        """Whether training went on for `patience` epochs without improving."""
        return self.epoch + self.patience < self.validation.shape[-1]

    @property
    def best(self) -> Int[np.ndarray, " rules"]:
        """Which rate each rule prefers: that of the highest mean validation score.

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
        """Test score at the epoch that the validation score chose; NaN if it diverged."""
        chosen = np.take_along_axis(self.test, self.epoch[..., None], -1)[..., 0]
        return np.where(self.diverged, np.nan, chosen)

    def curves(self) -> Float[np.ndarray, "rules seeds epochs"]:
        """Test score of each rule at its best rate."""
        return self.test[np.arange(len(self.names)), self.best]

    def reached(self) -> Float[np.ndarray, "rules seeds"]:
        """Test score of each rule at its best rate and each seed's best epoch."""
        return self.final[np.arange(len(self.names)), self.best]

    def difference(self, rule: str, other: str, level: float = 0.95) -> "Interval":
        """How much better one rule scores than another: paired over seeds, by Student's t.

        Raises ValueError for a name that was not compared.
        """
        rows = dict(zip(self.names, self.reached()))
        return interval(lookup(rows, rule=rule) - lookup(rows, other=other), level)

    def table(self) -> str:
        """Test score in %, mean over seeds, at every rate; * marks the best rate.

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
        """Draw the test score in % against epochs: the mean over seeds, and their range."""
        epochs = np.arange(1, self.test.shape[-1] + 1)
        for name, curves in zip(self.names, 100 * self.curves()):
            (line,) = ax.plot(epochs, curves.mean(0), label=name)
            ax.fill_between(epochs, curves.min(0), curves.max(0), color=line.get_color(), alpha=0.2)
        ax.set(xlabel="epoch", ylabel="test accuracy (%)")
        ax.legend()


Level = Annotated[float, Allowed("between 0 and 1", lambda value: 0 < value < 1)]


class Interval(NamedTuple):
    """A mean over `n` seeds, with its confidence interval and standard deviation (ddof = 1)."""

    mean: float
    low: float
    high: float
    sd: float
    n: int


@checked
def interval(values: Float[np.ndarray, " n"], level: Level = 0.95) -> Interval:
    """The mean of `values` with its interval by Student's t at the confidence `level`.

    Raises ValueError for fewer than two values or a level outside (0, 1).
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"values has {n} entries: must be at least 2")
    mean, sd = values.mean(), values.std(ddof=1)
    half = stdtrit(n - 1, (1 + level) / 2) * sd / np.sqrt(n)
    return Interval(float(mean), float(mean - half), float(mean + half), float(sd), n)


@checked
def exceeds(values: Float[np.ndarray, " n"], least: Finite) -> bool:
    """Whether the mean of `values` is above `least`, and their 95% `interval` above zero."""
    found = interval(values)
    return found.mean > least and found.low > 0


def _spread(values) -> str:
    """Mean ± standard deviation (ddof = 1); of a single value, the value."""
    if np.isnan(values).any():
        return "diverged"
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


@checked
def compare(
    rules: Annotated[Sequence[Rule], Allowed("at least one rule", len)],
    model: Model | Callable[..., Any],
    data: Dataset | tuple[Any, Any],
    *,
    rates: Annotated[Sequence[Positive], Allowed("one or more positive numbers", len)],
    key: Key[Array, ""],
    seeds: int | Sequence[int] = 5,
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
    epochs: Count = 10,
    batch_size: int = 32,
    patience: Count = 3,
    test: tuple[Any, Any] | None = None,
    metric: Callable[..., Any] | None = None,
    keep_params: bool = False,
) -> Comparison:
    """Train a model by every rule, at every learning rate, from several seeds.

    Every rule starts from the same weights and sees the same batches. Each seed holds out
    a fifth of the training samples, which choose the rate and the epoch: the test samples
    choose nothing. What to doubt in the result is in `Comparison.warnings`.

    Args:
        rules: At least one.
        model: A `Model`, or a function `init(key)` that draws the parameters.
        data: A `Dataset`, or arrays (x, y) with targets as in `fit`.
        rates: Learning rates, given to `optimizer` one at a time.
        key: Randomness of everything.
        seeds: How many, or a list of integers: each is then the same in every list.
        optimizer: A function of the learning rate that returns an optax optimiser.
        epochs: How long each training is.
        batch_size: Samples in a batch.
        patience: Epochs without improvement that make a plateau.
        test: Arrays (x, y) to test on, where `data` is arrays; else that of the `Dataset`.
        metric: `metric(predict, params, x, y)`, higher is better, as in `fit`.
        keep_params: Whether to return the parameters of every training.

    Raises ValueError where `fit` does, and for no rules, no rates or seeds, or a rate <= 0.

    >>> import jax
    >>> from pcbook import backprop, data, models, rules
    >>> found = rules.compare([backprop.rule()], models.mlp((64, 10)), data.digits(), epochs=1,
    ...                       rates=(0.001, 0.01), seeds=[3, 4], key=jax.random.key(0))
    >>> found.test.shape  # rules, rates, seeds, epochs
    (1, 2, 2, 1)
    """
    keys, init = _keys(seeds, key), _init(model)
    train, held = _read(rules[0], jax.eval_shape(init, key), data, test)
    kept = len(train.x) - len(train.x) // 5
    check_batch_size(batch_size, kept)
    metric = metric or default_metric(train.answers)
    grid, sets = jnp.array(rates, jnp.float32), jax.tree.map(jnp.asarray, (train, held))
    results = []
    for rule in tqdm(rules, desc="rules", leave=False, disable=None):
        training = partial(_train, rule, init, optimizer, epochs, batch_size, metric, keep_params)
        recording = Recording(training, grid[0], keys[0], *sets)
        results.append(_grid(recording, grid, keys, *sets))
    validation, test_scores, losses = (
        np.stack([np.asarray(result[n]) for result in results]) for n in range(3)
    )
    example = train.x[:batch_size], train.y[:batch_size]
    return Comparison(
        tuple(rule.name for rule in rules),
        tuple(rates),
        validation,
        test_scores,
        losses,
        np.array([_work(rule, init, example, key) for rule in rules], float),
        kept // batch_size,
        patience,
        tuple(result[3] for result in results) if keep_params else None,
    )


def _keys(seeds, key):
    """A key for each seed. Raises ValueError for no seeds, and what are none."""
    if isinstance(seeds, Sequence) and not isinstance(seeds, str):
        if not seeds or not all(map(is_integer, seeds)):
            raise ValueError(f"seeds = {seeds!r}: must be a count, or one or more integers")
        return jnp.stack([random.fold_in(key, seed) for seed in seeds])
    check_count(seeds=seeds)
    return random.split(key, seeds)


def _init(model):
    """The function that draws the parameters of a model."""
    return model.init if isinstance(model, Model) else model


def _read(rule, params, data, test):
    """The training and the test pairs."""
    if isinstance(data, Dataset):
        if test is not None:
            raise ValueError("test: must be left out, the data set having test images of its own")
        return read_dataset(rule, params, data)
    if test is None:
        raise ValueError("test = None: must be arrays (x, y), unless data is a Dataset")
    return read_pairs(rule, params, "data", data), read_pairs(rule, params, "test", test)


def _work(rule, init, example, key) -> int:
    """Multiplications in the matrix products of one update, measured on a new network."""
    params = init(key)
    return products(rule.gradient, params, rule.init(key, params), *example, key)


@partial(jax.jit, static_argnums=0)
def _grid(recording, rates, keys, *sets):
    """What `_train` returns, for each rate and each key."""

    def run(rate, key):
        return recording(rate, key, *sets)

    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))(rates, keys)


def _train(rule, init, optimizer, epochs, batch_size, metric, keep_params, rate, key, train, test):
    """One training: scores on held-out and on test samples, and the loss, after every epoch."""
    split_key, param_key, state_key, key = random.split(key, 4)
    order = random.permutation(split_key, len(train.x))
    held_out, rest = jnp.split(order, [len(train.x) // 5])
    adjust = optimizer(rate)

    def judge(params, x, answers):
        finite = jnp.stack([jnp.isfinite(p).all() for p in jax.tree.leaves(params)]).all()
        return jnp.where(finite, metric(rule.predict, params, x, answers), jnp.nan)

    def one(carry, key):
        carry, losses = epoch(rule, adjust, batch_size, carry, train.x[rest], train.y[rest], key)
        validation = judge(carry[0], train.x[held_out], train.answers[held_out])
        return carry, (validation, judge(carry[0], test.x, test.answers), losses.mean())

    carry = begin(rule, adjust, init(param_key), state_key)
    carry, scores = jax.lax.scan(one, carry, random.split(key, epochs))
    return (*scores, carry[0]) if keep_params else scores
