"""Predictive coding: perceive first, then learn, and do both with what is at hand.

Every layer predicts the one above it. The error of a prediction is the activity that it
failed to explain, times the precision pi_l of the prediction, and the energy is the sum of
their squares,

    mu_l = W_l phi(x_{l-1}) + b_l,        e_l = pi_l (x_l - mu_l),        pi_l = 1 by default,
    F = sum_{l<L} pi_l |x_l - mu_l|^2 / 2 + pi_L loss(mu_L, y),        e_L := -pi_L dloss/dmu_L.

Inference lets the activities descend the energy with input and target held fixed,

    dx_l/dt = -dF/dx_l = -e_l + (e_{l+1} W_{l+1}) * phi'(x_l),

and learning then descends it once in the weights, dW_l = e_l phi(x_{l-1})^T. Both need
only what a layer and its neighbours carry (Whittington & Bogacz 2017, sec. 2.2).

Chapter: book/foundations/predictive_coding.ipynb
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pcbook.core.arguments import Count, Finite, NotNegative, Positive, Tolerance, checked
from pcbook.core.checks import check_length, check_number, check_positive, check_width
from pcbook.core.energy import (
    Clamps,
    Energy,
    Inference,
    Precision,
    cache_hashable,
    define,
    report,
    settle,
    settle_then_learn,
    warn_if_diverged,
)
from pcbook.core.network import (
    LOSSES,
    Activities,
    Function,
    Layer,
    Named,
    Params,
    activities,
    find_activation,
    find_loss,
    firing,
    forward,
    hebbian,
    like_biases,
    predict,
    predictor,
)
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import relax
from pcbook.core.rules import Comparison, Rule
from pcbook.foundations import backprop
from pcbook.store.claims import Measurement, criterion
from pcbook.store.data import Dataset

__all__ = [
    "WithPrecision",
    "beside_backprop",
    "chain",
    "energies",
    "energy",
    "errors",
    "infer",
    "infer_input",
    "infer_size",
    "last_layer_rule",
    "linear_energy",
    "measure_fall",
    "nearest_mean",
    "rule",
    "velocities",
    "weight_gradients",
    "with_precision",
]


class WithPrecision(NamedTuple):
    """A network that learns its precisions too: of each layer 1..L, log pi, () or (n_l,)."""

    layers: Params
    log_precision: list[Float[Array, "..."]]


@checked
@cache_hashable
@picklable
def rule(
    *,
    steps: Count = 20,
    rate: Positive = 0.1,
    tolerance: Tolerance | None = None,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision | str = 1.0,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """Learn by predictive coding: infer the activities, then update the weights once.

    `steps` Euler steps of size `rate` from the forward pass, or with a `tolerance` at most so
    many: see `inference_learning`. With the precision "learned", the parameters are
    `WithPrecision`. `sample_weight(x, y)` -> (batch,) multiplies what is learned from a sample,
    and its loss. The loss returned is that of the forward pass, as in backprop: a prediction
    made before the target was seen. Raises ValueError for steps < 1, rate <= 0, precision <= 0,
    a tolerance outside [0, 1), an unknown name, or a precision to learn of another loss than
    the squared error.
    """
    learned = isinstance(precision, str)
    if learned and (precision != "learned" or find_loss(loss) is not LOSSES["squared error"]):
        raise ValueError(
            f"precision = {precision!r} with loss = {loss!r}: must be a number, or 'learned' "
            "with the loss 'squared error'"
        )
    energy, predict = chain(activation, loss), predictor(activation)
    return settle_then_learn(
        "predictive coding" if tolerance is None else "inference learning",
        learn_precision(energy) if learned else energy,
        (lambda params, x: predict(params.layers, x)) if learned else predict,
        find_loss(loss),
        precision=1.0 if learned else precision,
        sample_weight=sample_weight,
        steps=steps,
        rate=rate,
        tolerance=tolerance,
    )


@checked
def with_precision(params: Params, precision: Precision = 1.0) -> WithPrecision:
    """The network, and the logarithms of the precisions from which learning them starts.

    One for each layer, or for each unit of a layer whose entry is (n_l,). Raises ValueError
    for a precision <= 0, or other than one for each layer.
    """
    pis = [1.0 if pi is None else pi for pi in layer_precisions(params, precision)]
    return WithPrecision(params, [jnp.log(jnp.asarray(pi, params[0].W.dtype)) for pi in pis])


@picklable
def learn_precision(energy: Energy) -> Energy:
    """The energy of Gaussians whose precisions are parameters: `params` are `WithPrecision`.

        F = sum_l sum_i (pi_li (x_li - mu_li)^2 - log pi_li) / 2

    At rest pi is one over the mean squared error. Where a layer can be explained to the last,
    its error vanishes, and its precision grows without bound.
    """

    def given(params, clamps):
        return clamps._replace(precision=[jnp.exp(log_pi) for log_pi in params.log_precision])

    def value(params, xs, clamps):
        logs = zip(params.log_precision, params.layers)
        volume = sum(jnp.broadcast_to(log_pi, len(layer.W)).sum() for log_pi, layer in logs)
        return energy.value(params.layers, xs, given(params, clamps)) - volume / 2

    def start(params, clamps):
        return energy.start(params.layers, clamps)

    def velocity(params, xs, clamps):
        return energy.velocity(params.layers, xs, given(params, clamps))

    return define(value, start, velocity)


@checked
@cache
@picklable
def chain(
    activation: Named = "tanh",
    loss: Named = "squared error",
    *,
    prior: NotNegative | None = None,
) -> Energy:
    """The energy of predictive coding along a chain of layers; the state is x_0..x_{L-1}.

    The input is clamped to `clamps.x`, or with a `prior` it is free and starts there, held by
    prior |x_0 - x|^2 / 2: 0 lets it go. Raises ValueError for an unknown name.
    """
    find_activation(activation)
    find_loss(loss)

    def misses(params, xs, clamps):
        rs = firing(xs, activation)
        return errors_from_firing(params, xs, rs, clamps.y, loss, clamps.precision)

    def value(params, xs, clamps):
        rs = firing(xs, activation)
        F = sum(_energies(params, xs, rs, clamps.y, loss, clamps.precision))
        return F if prior is None else F + prior * ((xs[0] - clamps.x) ** 2).sum(-1) / 2

    def start(params, clamps):
        return activities(params, clamps.x, activation)[:-1]

    def velocity(params, xs, clamps):
        below, *hidden = velocities(params, xs, misses(params, xs, clamps), activation)
        return [None if prior is None else below - prior * (xs[0] - clamps.x), *hidden]

    def update(params, xs, clamps):
        es = misses(params, xs, clamps)
        if clamps.weight is not None:
            es = [clamps.weight[:, None] * e for e in es]
        return like_biases(params, weight_gradients(xs, es, activation))

    return Energy(value, start, velocity, update)


@checked
def errors(
    params: Params,
    xs: Activities,
    y: Float[Array, "batch n_L"] | None,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
) -> Activities:
    """Prediction errors e_1..e_L of the activities `xs` = x_0..x_{L-1} and the target `y`.

    With no target, `y` None, the output is free and takes on its prediction: e_L = 0. Raises
    ValueError for a target, a number of activities or of precisions that does not fit, or a
    precision for each output with another loss than the squared error.
    """
    return errors_from_firing(params, xs, firing(xs, activation), y, loss, precision)


def errors_from_firing(params, xs, rs, y, loss, precision) -> Activities:
    """`errors`, where each layer reads the firing `rs` = r_0..r_{L-1} of the layer below."""
    mus, mu, pis, pi, loss = _predicted(params, xs, rs, y, loss, precision)
    output = jnp.zeros_like(mu) if y is None else -pi * loss.slope(mu, y)
    misses = (x - m for x, m in zip(xs[1:], mus))
    return [*(e if pi is None else pi * e for e, pi in zip(misses, pis)), output]


def _predicted(params, xs, rs, y, loss, precision):
    """Predictions and precisions, those of the output apart, and the loss, once all fit."""
    check_length(len(params), "x_0..x_{L-1}", xs=xs)
    *mus, mu = [predict(layer, r) for layer, r in zip(params, rs)]
    *pis, pi = layer_precisions(params, precision)
    loss = _checked_loss(loss, y, mu, pi)
    return mus, mu, pis, pi, loss


def layer_precisions(params: Params, precision: Precision) -> list:
    """The precision of each layer 1..L; None, which is 1, for hidden layers that have none.

    Raises ValueError unless a list has one for each.
    """
    if not isinstance(precision, (list, tuple)):
        return [*[None] * (len(params) - 1), precision]
    check_length(len(params), "one for each of the layers 1..L", precision=precision)
    return list(precision)


def _checked_loss(loss: Named, y, mu, precision) -> Function:
    """The loss, once target and precision fit the output."""
    if y is not None:
        check_width("y", y, mu.shape[1], "output", len(mu))
    found, each = find_loss(loss), jnp.shape(precision)[-1:] not in ((), (1,))
    if each and found is not LOSSES["squared error"]:
        raise ValueError(
            f"precision of the output has shape {jnp.shape(precision)}: must be a number or "
            f"(batch, 1) with loss = {loss!r}, which does not add up over outputs"
        )
    return found


@checked
def energy(
    params: Params,
    xs: Activities,
    y: Float[Array, "batch n_L"] | None,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
) -> Float[Array, " batch"]:
    """The energy F of each sample: the sum of its `energies`, which raises the same errors."""
    return sum(_energies(params, xs, firing(xs, activation), y, loss, precision))


@checked
def energies(
    params: Params,
    xs: Activities,
    y: Float[Array, "batch n_L"] | None,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
) -> list[Float[Array, " batch"]]:
    """What each layer 1..L adds to the energy: pi_l |x_l - mu_l|^2 / 2, and pi_L loss.

    Raises ValueError where `errors` does.
    """
    return _energies(params, xs, firing(xs, activation), y, loss, precision)


def _energies(params, xs, rs, y, loss, precision) -> list[Float[Array, " batch"]]:
    mus, mu, pis, pi, loss = _predicted(params, xs, rs, y, loss, precision)
    squares = [(x - m) ** 2 for x, m in zip(xs[1:], mus)]
    hidden = [(s if pi is None else pi * s).sum(-1) / 2 for s, pi in zip(squares, pis)]
    if y is None:
        return [*hidden, jnp.zeros(len(mu), mu.dtype)]
    if jnp.ndim(pi) == 0:
        return [*hidden, pi * loss(mu, y)]
    if loss is LOSSES["squared error"]:
        return [*hidden, (pi * (y - mu) ** 2).sum(-1) / 2]
    return [*hidden, jnp.broadcast_to(pi, (len(mu), 1))[:, 0] * loss(mu, y)]


@checked
def velocities(
    params: Params,
    xs: Activities,
    es: Activities,
    activation: Named = "tanh",
    *,
    heard: Activities | None = None,
) -> Activities:
    """How inference moves each activity, dx_l/dt = -dF/dx_l for l = 0..L-1.

    A layer is pulled to the prediction from below and pushed to explain the error above, as
    it is `heard`: by default, as it is. Nothing predicts the input x_0, which feels the error
    above alone. Raises ValueError unless there are as many activities and errors as layers.
    """
    phi, heard = find_activation(activation), es if heard is None else heard
    check_length(len(params), "x_0..x_{L-1}", xs=xs)
    check_length(len(params), "e_1..e_L", es=es)
    hidden = [
        -e + (above @ layer.W) * phi.slope(x)
        for x, e, above, layer in zip(xs[1:], es[:-1], heard[1:], params[1:])
    ]
    return [heard[0] @ params[0].W, *hidden]


@checked
def infer(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"] | None,
    *,
    steps: Count = 20,
    rate: Positive = 0.1,
    tolerance: Tolerance | None = None,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
    start: Activities | None = None,
    clamp_input: bool = True,
    trajectory: bool = False,
) -> Inference:
    """Descend the energy in the activities, with the input clamped, and the target if there is one.

    `steps` Euler steps of size `rate` from the activities `start` = x_0..x_{L-1}, by default
    those of the forward pass; with a `tolerance` at most so many, until the speed |dx/dt| of
    every sample is at most that share of what it was at the start. With `clamp_input` false the
    input moves too. With `trajectory`, the `path` holds the activities, with a leading axis of
    the steps + 1 moments. Warns (RuntimeWarning) if inference diverged, but under `jax.jit` or
    `jax.vmap`. It can be differentiated, with a tolerance in forward mode alone. Inputs that
    are integers or truth values become numbers. Raises ValueError for steps < 1, rate <= 0, a
    tolerance outside [0, 1) or with a trajectory, precision <= 0, an unknown name, or a shape
    that does not fit.
    """
    forward = activities(params, x, activation)[:-1]
    start = forward if start is None else checked_start(start, forward)
    prior = None if clamp_input else 0.0
    energy, clamps = chain(activation, loss, prior=prior), Clamps(x, y, precision)
    relaxation = {"steps": steps, "tolerance": tolerance, "trajectory": trajectory}
    found = _infer(params, clamps, start, rate, energy=energy, **relaxation)
    warn_if_diverged(found, energy, params, clamps, start, rate)
    return found


def checked_start(start: Activities, forward: Activities) -> Activities:
    """The activities to start from with the input given, once they have the right shapes."""
    check_length(len(forward), "x_0..x_{L-1}", start=start)
    for l, (ours, theirs) in enumerate(zip(start, forward)):
        if ours.shape != theirs.shape:
            raise ValueError(f"start[{l}] has shape {ours.shape}: must be {theirs.shape}")
    return [forward[0], *start[1:]]


@partial(jax.jit, static_argnames=("energy", "steps", "tolerance", "trajectory"))
def _infer(params, clamps, start, rate, *, energy, **relaxation) -> Inference:
    """`energy.infer`, compiled once for each energy and each setting."""
    settled = settle(energy, params, clamps, start=start, rate=rate, **relaxation)
    return report(settled, energy, params, clamps, start)


@checked
def weight_gradients(xs: Activities, es: Activities, activation: Named = "tanh") -> list[Layer]:
    """dF/dW_l = -e_l r_{l-1}^T and dF/db_l = -e_l, means over the batch: local to each synapse.

    Raises ValueError unless there are as many activities as errors.
    """
    check_length(len(es), "x_0..x_{L-1}", xs=xs)
    return [hebbian(-e, r) for e, r in zip(es, firing(xs, activation))]


@checked
@partial(jax.jit, static_argnames=("steps",))
def infer_size(
    light: Finite,
    *,
    prior_mean: Finite = 3.0,
    prior_variance: Positive = 1.0,
    light_variance: Positive = 1.0,
    steps: Count = 300,
    rate: Positive = 0.01,
) -> Float[Array, " moments"]:
    """One neuron infers the size of a thing from the light that it reflects, g(size) = size^2.

    Gradient descent on (size - prior_mean)^2 / (2 prior_variance) + (light - size^2)^2 /
    (2 light_variance), from the prior's mean: the size at the steps + 1 moments
    (Bogacz 2017, exercise 2; arbitrary units). Raises ValueError for steps < 1, rate <= 0
    or a variance <= 0.
    """

    def velocity(size):
        prior_error = (size - prior_mean) / prior_variance
        light_error = (light - size**2) / light_variance
        return -prior_error + light_error * 2 * size

    start = jnp.float32(prior_mean)
    return relax(velocity, start, steps=steps, rate=rate, trajectory=True).path


def check_precision(precision: Precision) -> None:
    """Raise ValueError for a precision that is not positive; in an array 0 masks an output."""
    for pi in precision if isinstance(precision, (list, tuple)) else [precision]:
        if jnp.ndim(pi) == 0:
            check_positive(precision=pi)
        else:
            allowed = "finite numbers of at least 0"
            check_number(allowed, lambda a: (jnp.isfinite(a) & (a >= 0)).all(), precision=pi)


@checked
def infer_input(
    params: Params,
    y: Float[Array, "batch n_L"],
    prior: Float[Array, " n_0"],
    *,
    steps: Count,
    rate: Positive,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
) -> Float[Array, "batch n_0"]:
    """Run the network in reverse: clamp the output, and infer the input that explains it.

    The input starts at the mean `prior` of a Gaussian of unit variance and is held near it by
    e_0 = x_0 - prior. Raises ValueError for steps < 1, rate <= 0, precision <= 0, an unknown
    name or shapes that do not fit.
    """
    inputs = params[0].W.shape[1]
    if jnp.shape(prior) != (inputs,):
        raise ValueError(f"prior has shape {jnp.shape(prior)}: must be ({inputs},)")
    clamps = Clamps(jnp.tile(prior, (len(y), 1)), y, precision)
    energy = chain(activation, loss, prior=1.0)
    return settle(energy, params, clamps, steps=steps, rate=rate).state[0]


@checked
def linear_energy(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    precision: Precision = 1.0,
) -> Float[Array, " batch"]:
    """The energy at the equilibrium of a linear network, in closed form.

    F* = e^T S^-1 e / 2 with the output's error e = y - mu_L of the forward pass and
    S of `lent_variance`: the loss, divided by the variance that the hidden layers lend to
    the output (Innocenti et al. 2024, theorem 1). Raises ValueError for a target that does
    not fit.
    """
    check_width("y", y, len(params[-1].W), "output", len(x))
    e = y - forward(params, x, "identity")
    S, _ = lent_variance(params, precision)
    return (e * jnp.linalg.solve(S, e.T).T).sum(-1) / 2


def lent_variance(
    params: Params, precision: Precision = 1.0
) -> tuple[Float[Array, "n_L n_L"], list[Float[Array, "n_L _"]]]:
    """The output's own variance and what the hidden layers of a linear network lend it, and how.

    S = 1 / pi_L + sum_l P_l P_l^T / pi_l and, for each hidden layer l, the chain of weights from
    it to the output, P_l = W_L .. W_{l+1} (Innocenti et al. 2024, theorem 1).
    """
    *pis, pi = layer_precisions(params, precision)
    P = jnp.eye(len(params[-1].W), dtype=params[-1].W.dtype)
    S, chains = P / pi, []
    for layer, pi in zip(params[:0:-1], pis[::-1]):
        P = P @ layer.W
        S = S + (P if pi is None else P / pi) @ P.T
        chains.insert(0, P)
    return S, chains


# --- criteria of the claims, and their controls ---


@criterion("pc-equilibrated-energy")
def reaches_closed_form(m: Measurement) -> bool:
    """Whether the largest relative distance to the closed form is below 1e-4 in every network."""
    return bool(np.max(m["distance"]) < 1e-4)


@criterion("pc-as-accurate-as-backprop")
def is_as_accurate(m: Measurement) -> bool:
    """Whether the mean accuracy, in percent, is less than one point below backprop's."""
    return bool(np.mean(m["backprop"]) - np.mean(m["coding"]) < 1)


def beside_backprop(comparison: Comparison, rule: str) -> Measurement:
    """The accuracies of a rule and of backprop in percent, and the interval of their difference."""
    reached = dict(zip(comparison.names, 100 * comparison.reached()))
    gap = comparison.difference(rule, "backprop")
    accuracies = {"backprop": reached["backprop"], "coding": reached[rule]}
    return accuracies | {"low": 100 * gap.low, "high": 100 * gap.high}


@picklable
def last_layer_rule() -> Rule:
    """Update the last layer alone, as predictive coding does before inference has begun."""
    whole = backprop.rule()

    def gradient(params, state, x, y, key):
        loss, grads, state = whole.gradient(params, state, x, y, key)
        return loss, [*jax.tree.map(jnp.zeros_like, grads[:-1]), grads[-1]], state

    return whole._replace(name="last layer only", gradient=gradient)


def nearest_mean(dataset: Dataset) -> float:
    """The share of the test images that are nearest to the mean training image of their class."""
    classes = np.unique(dataset.y_train)
    means = np.stack([dataset.x_train[dataset.y_train == c].mean(0) for c in classes])
    distances = ((dataset.x_test[:, None] - means) ** 2).sum(-1)
    return float((classes[distances.argmin(1)] == dataset.y_test).mean())


@criterion("pc-variance-ratio")
def becomes_backprop(m: Measurement) -> bool:
    """Whether the angle at 256 is below 1 degree and falls with an exponent near -1."""
    return bool(m["at_256"] < 1 and -1.2 < m["slope"] < -0.8)


def measure_fall(ratios: tuple[int, ...], angles: Float[Array, "ratios seeds"]) -> Measurement:
    """Medians over seeds of the angles at the ratios 1 and 256, and the exponent from 16 to 256."""
    medians = dict(zip(ratios, np.median(angles, axis=1)))
    fitted = [ratio for ratio in ratios if 16 <= ratio <= 256]
    slope = np.polyfit(np.log(fitted), np.log([medians[ratio] for ratio in fitted]), 1)[0]
    return {"at_1": medians[1], "at_256": medians[256], "slope": slope}


@criterion("pc-label-leakage")
def is_at_chance(m: Measurement) -> bool:
    """Whether what has learned nothing is read, in the mean, with less than 30% accuracy."""
    return bool(np.mean(m["accuracy"]) < 30)
