"""Predictive coding: perceive first, then learn, and do both with what is at hand.

Every layer predicts the one above it. The error of a prediction is the activity that it
failed to explain, and the energy is the sum of their squares,

    mu_l = W_l phi(x_{l-1}) + b_l,        e_l = x_l - mu_l,
    F = sum_{l<L} |e_l|^2 / 2 + pi loss(mu_L, y),        e_L := -pi dloss/dmu_L.

Inference lets the activities descend the energy with input and target held fixed,

    dx_l/dt = -dF/dx_l = -e_l + (e_{l+1} W_{l+1}) * phi'(x_l),

and learning then descends it once in the weights, dW_l = e_l phi(x_{l-1})^T. Both need
only what a layer and its neighbours carry (Whittington & Bogacz 2017, sec. 2.2).

Chapter: book/foundations/predictive_coding.ipynb
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pcbook.core.checks import check_count, check_positive, check_width, lookup
from pcbook.core.energy import Clamps, Energy, settle, settle_then_learn
from pcbook.core.network import (
    ACTIVATIONS,
    LOSSES,
    Activities,
    Layer,
    Params,
    activities,
    firing,
    forward,
    hebbian,
    predict,
    predictor,
)
from pcbook.core.relaxation import Number, Settled, relax
from pcbook.core.rules import Comparison, Rule
from pcbook.foundations import backprop
from pcbook.store.claims import Measurement, criterion
from pcbook.store.data import Dataset


@cache
def rule(
    steps: int = 20,
    rate: float = 0.1,
    activation: str = "tanh",
    loss: str = "squared error",
    precision: float = 1.0,
) -> Rule:
    """Learn by predictive coding: infer the activities, then update the weights once.

    `steps` Euler steps of size `rate` from the forward pass. The loss returned is that of
    the forward pass, as in backprop: a prediction made before the target was seen.
    Raises ValueError for steps < 1, rate <= 0, precision <= 0 or an unknown name.
    """
    check_inference(steps, rate, precision)
    return settle_then_learn(
        "predictive coding",
        chain(activation, loss),
        predictor(activation),
        lookup(LOSSES, loss=loss),
        precision=precision,
        steps=steps,
        rate=rate,
    )


@cache
def chain(
    activation: str = "tanh", loss: str = "squared error", prior: float | None = None
) -> Energy:
    """The energy of predictive coding along a chain of layers; the state is x_0..x_{L-1}.

    The input is clamped to `clamps.x`, or with a `prior` it is free and starts there, held by
    prior |x_0 - x|^2 / 2: 0 lets it go. Raises ValueError for an unknown name.
    """
    lookup(ACTIVATIONS, activation=activation)
    lookup(LOSSES, loss=loss)

    def misses(params, xs, clamps):
        return errors(params, xs, clamps.y, activation, loss, clamps.precision)

    def value(params, xs, clamps):
        F = energy(params, xs, clamps.y, activation, loss, clamps.precision)
        return F if prior is None else F + prior * ((xs[0] - clamps.x) ** 2).sum(-1) / 2

    def start(params, clamps):
        return activities(params, clamps.x, activation)[:-1]

    def velocity(params, xs, clamps):
        below, *hidden = velocities(params, xs, misses(params, xs, clamps), activation)
        return [None if prior is None else below - prior * (xs[0] - clamps.x), *hidden]

    def update(params, xs, clamps):
        return weight_gradients(xs, misses(params, xs, clamps), activation)

    return Energy(value, start, velocity, update)


def errors(
    params: Params,
    xs: Activities,
    y: Float[Array, "batch n_L"] | None,
    activation: str = "tanh",
    loss: str = "squared error",
    precision: Number | Float[Array, " n_L"] = 1.0,
) -> Activities:
    """Prediction errors e_1..e_L of the activities `xs` = x_0..x_{L-1} and the target `y`.

    With no target, `y` None, the output is free and takes on its prediction: e_L = 0. The
    precision is one for all outputs or, with the squared error, one for each. Raises
    ValueError for a target that does not fit.
    """
    return errors_from_firing(params, xs, firing(xs, activation), y, loss, precision)


def errors_from_firing(
    params: Params,
    xs: Activities,
    rs: Activities,
    y: Float[Array, "batch n_L"] | None,
    loss: str = "squared error",
    precision: Number | Float[Array, " n_L"] = 1.0,
) -> Activities:
    """`errors`, where each layer reads the firing `rs` = r_0..r_{L-1} of the layer below."""
    *mus, mu = [predict(layer, r) for layer, r in zip(params, rs)]
    if y is not None:
        check_width("y", y, mu.shape[1], "output", len(mu))
    slope = lookup(LOSSES, loss=loss).slope
    output = jnp.zeros_like(mu) if y is None else -precision * slope(mu, y)
    return [*(x - m for x, m in zip(xs[1:], mus)), output]


def energy(
    params: Params,
    xs: Activities,
    y: Float[Array, "batch n_L"] | None,
    activation: str = "tanh",
    loss: str = "squared error",
    precision: Number = 1.0,
) -> Float[Array, " batch"]:
    """The energy F of each sample: half the squared errors of the hidden layers, and pi loss."""
    *mus, mu = [predict(layer, r) for layer, r in zip(params, firing(xs, activation))]
    output = jnp.zeros(len(mu)) if y is None else precision * lookup(LOSSES, loss=loss)(mu, y)
    return sum(((x - m) ** 2).sum(-1) / 2 for x, m in zip(xs[1:], mus)) + output


def velocities(
    params: Params,
    xs: Activities,
    es: Activities,
    activation: str = "tanh",
    heard: Activities | None = None,
) -> Activities:
    """How inference moves each activity, dx_l/dt = -dF/dx_l for l = 0..L-1.

    A layer is pulled to the prediction from below and pushed to explain the error above, as
    it is `heard`: by default, as it is. Nothing predicts the input x_0, which feels the error
    above alone.
    """
    phi, heard = lookup(ACTIVATIONS, activation=activation), es if heard is None else heard
    hidden = [
        -e + (above @ layer.W) * phi.slope(x)
        for x, e, above, layer in zip(xs[1:], es[:-1], heard[1:], params[1:])
    ]
    return [heard[0] @ params[0].W, *hidden]


def infer(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"] | None,
    *,
    steps: int = 20,
    rate: Number = 0.1,
    activation: str = "tanh",
    loss: str = "squared error",
    precision: Number = 1.0,
    start: Activities | None = None,
    trajectory: bool = False,
) -> list[Float[Array, "*moments batch _"]]:
    """Descend the energy in the activities, with the input clamped, and the target if there is one.

    `steps` Euler steps of size `rate` from the activities `start` = x_0..x_{L-1}, by default
    those of the forward pass. Returns x_0..x_{L-1}, or with `trajectory` the same with a
    leading axis of the steps + 1 moments. Raises ValueError for steps < 1, rate <= 0,
    precision <= 0, an unknown name, or a shape that does not fit.
    """
    check_inference(steps, rate, precision)
    start = activities(params, x, activation)[:-1] if start is None else [x, *start[1:]]
    settled = relaxed(
        params,
        Clamps(x, y, precision),
        start,
        rate,
        energy=chain(activation, loss),
        steps=steps,
        trajectory=trajectory,
    )
    return settled.path if trajectory else settled.state


@partial(jax.jit, static_argnames=("energy", "steps", "tolerance", "trajectory"))
def relaxed(
    params: Params,
    clamps: Clamps,
    start: Activities,
    rate: Number,
    *,
    energy: Energy,
    steps: int,
    tolerance: float | None = None,
    trajectory: bool = False,
) -> Settled:
    """`energy.settle`, compiled once for each energy and each setting."""
    relaxation = {"steps": steps, "tolerance": tolerance, "trajectory": trajectory}
    return settle(energy, params, clamps, start=start, rate=rate, **relaxation)


def weight_gradients(xs: Activities, es: Activities, activation: str = "tanh") -> list[Layer]:
    """dF/dW_l = -e_l r_{l-1}^T and dF/db_l = -e_l, means over the batch: local to each synapse."""
    return [hebbian(-e, r) for e, r in zip(es, firing(xs, activation))]


@partial(jax.jit, static_argnames=("steps", "rate"))
def infer_size(
    light: Number,
    *,
    prior_mean: Number = 3.0,
    prior_variance: Number = 1.0,
    light_variance: Number = 1.0,
    steps: int = 300,
    rate: Number = 0.01,
) -> Float[Array, " moments"]:
    """One neuron infers the size of a thing from the light that it reflects, g(size) = size^2.

    Gradient descent on (size - prior_mean)^2 / (2 prior_variance) + (light - size^2)^2 /
    (2 light_variance), from the prior's mean: the size at the steps + 1 moments
    (Bogacz 2017, exercise 2; arbitrary units). Raises ValueError for steps < 1
    or rate <= 0.
    """
    check_inference(steps, rate, 1.0)

    def velocity(size):
        prior_error = (size - prior_mean) / prior_variance
        light_error = (light - size**2) / light_variance
        return -prior_error + light_error * 2 * size

    start = jnp.float32(prior_mean)
    return relax(velocity, start, steps=steps, rate=rate, trajectory=True).path


def check_inference(steps: int, rate: Number, precision: Number) -> None:
    """Raise ValueError unless inference moves: steps >= 1, rate > 0, precision > 0."""
    check_count(steps=steps)
    check_positive(rate=rate, precision=precision)


def infer_input(
    params: Params,
    y: Float[Array, "batch n_L"],
    prior: Float[Array, " n_0"],
    *,
    steps: int,
    rate: float,
    activation: str = "tanh",
) -> Float[Array, "batch n_0"]:
    """Run the network in reverse: clamp the output, and infer the input that explains it.

    The input starts at the mean `prior` of a Gaussian of unit variance and is held near it by
    e_0 = x_0 - prior. Raises ValueError for steps < 1, rate <= 0 or shapes that do not fit.
    """
    check_inference(steps, rate, 1.0)
    clamps = Clamps(jnp.tile(prior, (len(y), 1)), y)
    return settle(chain(activation, prior=1.0), params, clamps, steps=steps, rate=rate).state[0]


def equilibrated_energy(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    precision: float = 1.0,
) -> Float[Array, " batch"]:
    """The energy at the equilibrium of a linear network, in closed form.

    F* = e^T S^-1 e / 2 with the output's error e = y - mu_L of the forward pass and
    S of `lent_variance`: the loss, divided by the variance that the hidden layers lend to
    the output (Innocenti et al. 2024, theorem 1).
    """
    e = y - forward(params, x, "identity")
    S, _ = lent_variance(params, precision)
    return (e * jnp.linalg.solve(S, e.T).T).sum(-1) / 2


def lent_variance(
    params: Params, precision: Number = 1.0
) -> tuple[Float[Array, "n_L n_L"], list[Float[Array, "n_L _"]]]:
    """The output's own variance and what the hidden layers of a linear network lend it, and how.

    S = I / pi + sum_l P_l P_l^T and, for each hidden layer l, the chain of weights from it
    to the output, P_l = W_L .. W_{l+1} (Innocenti et al. 2024, theorem 1).
    """
    P = jnp.eye(len(params[-1].W), dtype=params[-1].W.dtype)
    S, chains = P / precision, []
    for layer in params[:0:-1]:
        P = P @ layer.W
        S = S + P @ P.T
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
