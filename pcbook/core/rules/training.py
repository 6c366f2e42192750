"""Train with any rule: `fit` on data in any form, `learn` on batches in a given order."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from jaxtyping import Array, Float, Key, Num
from tqdm import tqdm

from pcbook.core.arguments import Count, checked
from pcbook.core.checks import check_arrays
from pcbook.core.rules.pairs import (
    check_batch_size,
    is_pair,
    iterators,
    read,
    read_batches,
    read_dataset,
    read_pairs,
)
from pcbook.core.rules.recording import Recording, run
from pcbook.core.rules.rule import Rule, begin, default_metric, epoch, step
from pcbook.store.data import Dataset

RISE = 100  # A loss of as many times the first epoch's is no longer learning.


class History(NamedTuple):
    """Mean training loss, and score on the validation data, after each epoch.

    The score is the accuracy for labels, R squared for other targets, or another metric;
    NaN without validation data.
    """

    loss: Float[np.ndarray, " epochs"]
    score: Float[np.ndarray, " epochs"]


class Fit(NamedTuple):
    """What training leaves behind, and what it is resumed from.

    `params`, `state` (of the rule) and `memory` (of the optimiser) are those after the last epoch
    of `history`, `best` the parameters with the highest score. `diverged` is None, or the epoch
    and the step in it, from 0, in which training went wrong: that epoch was undone.
    """

    params: Any
    state: Any
    memory: Any
    history: History
    best: Any
    diverged: tuple[int, int] | None = None


@checked
def fit(
    rule: Rule,
    params: Any,
    data: Any,
    *,
    optimizer: optax.GradientTransformation,
    epochs: Count,
    key: Key[Array, ""],
    batch_size: int | None = None,
    validation: tuple[Any, Any] | None = None,
    metric: Callable[..., Any] | None = None,
    patience: Count | None = None,
    callback: Callable[[Fit], Any] | None = None,
    resume: Fit | None = None,
) -> Fit:
    """Train `params` with a rule and an optax optimiser.

    Args:
        rule: Any `Rule`.
        params: Parameters of the model that the rule predicts with; left as they are.
        data: A `Dataset`, a tuple (x, y) of arrays, or batches (x, y) of anything that NumPy
            reads: a list or loader, which is gone through once an epoch, or a function that
            returns an iterator. Integer targets with one axis less than the output are
            labels; all others have the shape of the output.
        optimizer: Any optax optimiser; it is given the loss as `value`.
        epochs: How many epochs to train, or to train on.
        key: Randomness: state of the rule, order of the samples, steps of the rule.
        batch_size: Samples in a batch of arrays, which are shuffled in each epoch; those that
            do not fill the last batch sit that epoch out. None for batches.
        validation: Arrays (x, y) to score after each epoch; the test images of a `Dataset`.
        metric: `metric(predict, params, x, y)`, higher is better: by default the accuracy for
            labels, and R squared for other targets.
        patience: Stop when the score has not been higher for as many epochs.
        callback: Called with the `Fit` so far after each epoch; stops if it returns True.
        resume: Train on from here, in the place of `params`. With the same key and data the
            result is that of training without a stop, to the last bit.

    Warns (RuntimeWarning) and stops with what the epoch before left if a loss or the
    parameters are not finite, or the mean loss is above 100 times that of the first epoch.
    Raises ValueError for data, targets and numbers that do not fit.

    >>> import jax, jax.numpy as jnp, optax
    >>> from pcbook import backprop, network, rules
    >>> x = jnp.linspace(-1, 1, 64)[:, None]
    >>> params = network.init(jax.random.key(0), (1, 8, 1))
    >>> found = rules.fit(backprop.rule(), params, (x, x**2), optimizer=optax.adam(0.1), epochs=30,
    ...                   batch_size=16, validation=(x, x**2), key=jax.random.key(1))
    >>> bool(found.history.score[-1] > 0.9)
    True
    """
    init_key, key = random.split(key)
    if resume is None:
        carry, rows, best = begin(rule, optimizer, params, init_key), [], params
    else:
        carry, rows, best = resume[:3], list(zip(*resume.history)), resume.best
    check_arrays("params", carry[0])
    carry = jax.tree.map(jnp.asarray, carry)
    train, validation = _read(rule, carry[0], data, validation, epochs, batch_size)
    score = _scorer(rule, carry[0], validation, metric, patience)
    teach = _teacher(rule, optimizer, batch_size, train, carry, key)
    found = Fit(*carry, _history(rows), best)
    keys = random.split(key, len(rows) + epochs)[len(rows) :]
    for epoch_key in tqdm(keys, desc=rule.name, unit="epoch", leave=False, disable=None):
        carry, losses = teach(carry, epoch_key)
        if trouble := _trouble(losses, carry[0], rows):
            at, what = trouble
            warnings.warn(
                f"{rule.name}: {what} at step {at} of epoch {len(rows)}: training stopped, with "
                f"the parameters of before that epoch",
                RuntimeWarning,
                stacklevel=2,
            )
            return found._replace(diverged=(len(rows), at))
        rows.append((losses.mean(), score(carry[0])))
        history = _history(rows)
        since = len(rows) - 1 - np.nan_to_num(history.score, nan=-np.inf).argmax()
        found = Fit(*carry, history, carry[0] if since == 0 else found.best)
        if (callback and callback(found)) or (patience is not None and since >= patience):
            break
    return found


def _read(rule, params, data, validation, epochs, batch_size):
    """The training data, as pairs or as a function that begins the batches, and the validation."""
    if validation is not None:
        validation = read_pairs(rule, params, "validation", validation)
    if isinstance(data, Dataset):
        train, test = read_dataset(rule, params, data)
        validation = test if validation is None else validation
    elif is_pair(data):
        train = read(rule, params, *data)
    else:
        if batch_size is not None:
            raise ValueError(f"batch_size = {batch_size!r}: must be left out, data being batches")
        return iterators(data, epochs), validation
    check_batch_size(batch_size, len(train.x))
    return train, validation


def _scorer(rule, params, validation, metric, patience):
    """The function of the parameters that is the score on the validation data."""
    if validation is None:
        for name, value in (("patience", patience), ("metric", metric)):
            if value is not None:
                raise ValueError(f"{name} = {value!r}: must be left out without validation data")
        return lambda params: np.nan
    x, _, answers = validation
    metric = partial(metric or default_metric(answers), rule.predict)
    recording = Recording(metric, params, x, answers)
    return lambda params: float(run(recording, params, x, answers))


def _teacher(rule, optimizer, batch_size, train, carry, key):
    """The function (carry, key) -> carry, losses of each step, that trains for an epoch."""
    if isinstance(train, tuple):
        x, y, _ = train
        recording = Recording(partial(epoch, rule, optimizer, batch_size), carry, x, y, key)
        return lambda carry, key: _to_host(run(recording, carry, x, y, key))
    learn_from = step(rule.gradient, optimizer, rule.follow)
    recordings = {}

    def teach(carry, key):
        losses = []
        for number, (x, y, _) in enumerate(read_batches(rule, carry[0], train())):
            batch = x, y, random.fold_in(key, number)
            kind = x.shape, x.dtype, y.dtype
            if kind not in recordings:
                recordings[kind] = Recording(learn_from, carry, batch)
            carry, loss = run(recordings[kind], carry, batch)
            losses.append(loss)
        return carry, np.array(losses)

    return teach


def _to_host(trained):
    return trained[0], np.asarray(trained[1])


def _trouble(losses, params, rows):
    """The step, and what went wrong in it; None if all is well."""
    if not np.isfinite(losses).all():
        return int((~np.isfinite(losses)).argmax()), "a loss that is not finite"
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        return len(losses) - 1, "parameters that are not finite"
    limit = RISE * abs(rows[0][0]) if rows else np.inf
    if losses.mean() > limit:
        return int((losses > limit).argmax()), f"a loss of over {RISE} times the first epoch's"
    return None


def _history(rows) -> History:
    return History(*np.array(rows, float).reshape(-1, 2).T)


@checked
def learn(
    rule: Rule,
    params: Any,
    x: Num[Array, "batches batch ..."],
    y: Num[Array, "batches batch ..."],
    *,
    optimizer: optax.GradientTransformation,
    watch: Callable[..., Any],
    every: Count,
    key: Key[Array, ""],
) -> tuple[Any, Any]:
    """Learn from batches in the order in which they come, and watch.

    Returns the parameters, and what `watch(params)` saw before the first batch and after
    each `every` of them, stacked. For worlds that change: `jax.vmap` lives many lives at once.
    Raises ValueError unless `every` divides the number of batches.
    """
    if len(x) % every:
        raise ValueError(f"every = {every}: must divide {len(x)}, the number of batches")
    init_key, key = random.split(key)
    batches = (x, y, random.split(key, len(x)))
    blocks = jax.tree.map(lambda a: a.reshape(len(x) // every, every, *a.shape[1:]), batches)

    def block(carry, batches):
        carry, _ = jax.lax.scan(step(rule.gradient, optimizer, rule.follow), carry, batches)
        return carry, watch(carry[0])

    carry = begin(rule, optimizer, params, init_key)
    first = watch(params)
    carry, seen = jax.lax.scan(block, carry, blocks)
    return carry[0], jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, seen)
