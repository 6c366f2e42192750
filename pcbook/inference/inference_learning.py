"""Inference learning: first infer what the activities should have been, then learn it.

Backprop changes weights so that activities will improve. Inference learning improves the
activities first: they settle, with input and target clamped, where the energy F is lowest,

    E-step  x* = argmin_x F(x, W),        M-step  dW_l = e_l phi(x*_{l-1})^T,

and the weights follow the activities. These are the two steps of variational expectation
maximisation, with a belief of one value for each activity (Song et al. 2024 call it
prospective configuration). With an output that is hardly believed, the update is
backprop's; with an input that is free, activities come to rest at the targets of target
propagation (Millidge et al. 2022); with an output that is free but nudged, it is
equilibrium propagation (Scellier & Bengio 2017).

Chapter: book/inference/inference_learning.ipynb
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from pcbook.core.network import (
    LOSSES,
    Activities,
    Layer,
    Params,
    activities,
    check_number,
    check_width,
    forward,
    predict,
    predictor,
)
from pcbook.core.rules import Rule, stateless
from pcbook.foundations.predictive_coding import (
    Number,
    check_inference,
    errors,
    infer,
    lent_variance,
    velocities,
    weight_gradients,
)


class Settled(NamedTuple):
    """Activities x_0..x_{L-1} at rest, and after how many steps."""

    xs: Activities
    steps: Int[Array, ""]


def settle(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"] | None,
    *,
    tolerance: float = 1e-3,
    most: int = 1000,
    rate: Number = 0.1,
    activation: str = "tanh",
    loss: str = "squared error",
    precision: Number = 1.0,
    clamp_input: bool = True,
    start: Activities | None = None,
) -> Settled:
    """The E-step: descend the energy until the activities have come to rest.

    A sample is at rest when its speed |dx/dt| is at most `tolerance` of what it was at
    `start`, by default the forward pass; inference ends when all are, or after `most` Euler
    steps of size `rate`. With `clamp_input` false the input moves too. Raises ValueError
    for tolerance < 0, most < 1, rate <= 0, precision <= 0, an unknown name or a shape that
    does not fit.
    """
    _check(tolerance, most, rate, precision)
    if y is not None:
        check_width("y", y, len(params[-1].b), "output", len(x))
    start = [x, *(activities(params, x, activation)[:-1] if start is None else start)[1:]]
    return _settle(
        params, start, y, tolerance, rate, precision, most, activation, loss, clamp_input
    )


@partial(jax.jit, static_argnums=(6, 7, 8, 9))
def _settle(params, start, y, tolerance, rate, precision, most, activation, loss, clamp_input=True):
    def velocity(xs):
        vs = velocities(params, xs, errors(params, xs, y, activation, loss, precision), activation)
        return [jnp.zeros_like(xs[0]) if clamp_input else vs[0], *vs[1:]]

    def speed(vs):
        return jnp.sqrt(sum((v**2).sum(-1) for v in vs))

    first = velocity(start)
    rest = tolerance * speed(first)

    def moving(state):
        _, vs, steps = state
        return (steps < most) & (speed(vs) > rest).any()

    def step(state):
        xs, vs, steps = state
        xs = [x + rate * v for x, v in zip(xs, vs)]
        return xs, velocity(xs), steps + 1

    xs, _, steps = lax.while_loop(moving, step, (start, first, 0))
    return Settled(xs, steps)


@cache
def rule(
    tolerance: float = 1e-3,
    most: int = 1000,
    rate: float = 0.1,
    activation: str = "tanh",
    loss: str = "squared error",
    precision: float = 1.0,
) -> Rule:
    """Settle, then take one Hebbian step: expectation, maximisation.

    The loss returned is that of the forward pass, before the target was seen. Raises
    ValueError where `settle` does.
    """
    _check(tolerance, most, rate, precision)
    output_loss = LOSSES[loss]
    model = {"activation": activation, "loss": loss, "precision": precision}

    def gradient(params, state, x, y, key):
        xs, _ = settle(params, x, y, tolerance=tolerance, most=most, rate=rate, **model)
        es = errors(params, xs, y, **model)
        value = output_loss(forward(params, x, activation), y).mean()
        return value, weight_gradients(xs, es, activation), state

    return Rule("inference learning", stateless, gradient, predictor(activation))


def incremental_rule(
    optimizer: optax.GradientTransformation,
    steps: int = 20,
    rate: float = 0.1,
    activation: str = "tanh",
    loss: str = "squared error",
    precision: float = 1.0,
) -> Rule:
    """Move activities and weights together, at each of the `steps` (Salvatori et al. 2024).

    A batch then changes the weights `steps` times, each by the rule's own `optimizer`, whose
    memory is the rule's state. The update returned is all of that at once, so train with
    `optax.sgd(1.0)`. Raises ValueError for steps < 1, rate <= 0, precision <= 0 or an
    unknown name.
    """
    check_inference(steps, rate, precision)
    output_loss = LOSSES[loss]
    model = {"activation": activation, "loss": loss, "precision": precision}

    def gradient(params, memory, x, y, key):
        def step(carry, _):
            params, memory, xs = carry
            slopes = weight_gradients(xs, errors(params, xs, y, **model), activation)
            update, memory = optimizer.update(slopes, memory, params)
            xs = infer(params, x, y, steps=1, rate=rate, start=xs, **model)
            return (optax.apply_updates(params, update), memory, xs), None

        *start, mu = activities(params, x, activation)
        (end, memory, _), _ = lax.scan(step, (params, memory, start), length=steps)
        return output_loss(mu, y).mean(), jax.tree.map(jnp.subtract, params, end), memory

    return Rule(
        "incremental", lambda key, params: optimizer.init(params), gradient, predictor(activation)
    )


def target_alignment(
    params: Params,
    update: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    rate: Number,
    activation: str = "tanh",
) -> Float[Array, " batch"]:
    """How directly a step of the weights moves each output towards its target.

    The cosine between the way that the output went, when the weights descended `update` at
    the learning `rate`, and the way to the target: 1 is straight there (Song et al. 2024).
    """
    before = forward(params, x, activation)
    after = forward(jax.tree.map(lambda p, u: p - rate * u, params, update), x, activation)
    went, way = after - before, y - before
    return (went * way).sum(-1) / jnp.linalg.norm(went, axis=-1) / jnp.linalg.norm(way, axis=-1)


def equilibrium(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    precision: Number = 1.0,
) -> Activities:
    """Where the activities x_0..x_{L-1} of a linear network come to rest, in closed form.

    Errors are e_L = S^-1 (y - mu_L), mu_L of the forward pass, and e_l = e_{l+1} W_{l+1}
    below, S being that of `predictive_coding.lent_variance`.
    """
    S, chains = lent_variance(params, precision)
    e = jnp.linalg.solve(S, (y - forward(params, x, "identity")).T).T
    xs = [x]
    for layer, P in zip(params, chains):
        xs.append(predict(layer, xs[-1]) + e @ P)
    return xs


def targets(params: Params, y: Float[Array, "batch n_L"]) -> Activities:
    """The activities x_0..x_{L-1} that a linear network of square layers turns into `y`.

    These are the targets of target propagation with exact inverses (Lee et al. 2015):
    x_{l-1} = W_l^-1 (x_l - b_l), x_L = y.
    """
    ts = [y]
    for layer in reversed(params):
        ts.insert(0, jnp.linalg.solve(layer.W, (ts[0] - layer.b).T).T)
    return ts[:-1]


def equilibrium_propagation(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    nudge: Number,
    *,
    symmetric: bool = True,
    tolerance: float = 1e-3,
    most: int = 1000,
    rate: Number = 0.1,
    activation: str = "tanh",
) -> list[Layer]:
    """The update of equilibrium propagation, on the energy of predictive coding.

    The output is free, and nudged by beta |y - x_L|^2 / 2. At rest its error is that of a
    clamped target of precision beta / (1 + beta), and with no nudge all errors are zero. So
    the contrast of the two phases, [dF/dW(beta) - dF/dW(0)] / beta, is the update of
    predictive coding, divided by beta; `symmetric`, that of beta and -beta (Laborieux et
    al. 2021). Raises ValueError unless 0 < nudge < 1, and for tolerance < 0, most < 1 or
    rate <= 0.
    """
    _check(tolerance, most, rate, 1.0)
    check_number("between 0 and 1", lambda value: 0 < value < 1, nudge=nudge)

    def nudged(beta):
        model = (activation, "squared error")
        precision, start = beta / (1 + beta), activities(params, x, activation)[:-1]
        xs, _ = _settle(params, start, y, tolerance, rate, precision, most, *model)
        slopes = weight_gradients(xs, errors(params, xs, y, *model, precision), activation)
        return jax.tree.map(lambda slope: slope / beta, slopes)

    if not symmetric:
        return nudged(nudge)
    return jax.tree.map(lambda a, b: (a + b) / 2, nudged(nudge), nudged(-nudge))


def _check(tolerance, most, rate, precision):
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance = {tolerance}: must be at least 0 and less than 1")
    if most < 1:
        raise ValueError(f"most = {most}: must be at least 1")
    check_inference(most, rate, precision)
