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

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from pcbook.core.arguments import Allowed, Count, Finite, Positive, Scalar, Tolerance, checked
from pcbook.core.checks import check_alike, check_number, check_width
from pcbook.core.energy import Clamps, Inference, Precision, contrast, weigh, weighted
from pcbook.core.network import (
    LOSSES,
    Activities,
    Named,
    Params,
    find_loss,
    forward,
    predict,
    predictor,
)
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import relax
from pcbook.core.rules import Rule, exceeds
from pcbook.foundations import predictive_coding
from pcbook.foundations.predictive_coding import chain, infer, layer_precisions, lent_variance
from pcbook.store.claims import Measurement, criterion

__all__ = [
    "equilibrium_propagation",
    "incremental_rule",
    "linear_equilibrium",
    "linear_targets",
    "rule",
    "settle",
    "target_alignment",
]

Nudge = Annotated[Scalar, Allowed("between 0 and 1", lambda value: (value > 0) & (value < 1))]


@checked
def settle(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"] | None,
    *,
    steps: Count = 1000,
    tolerance: Tolerance = 1e-3,
    **options: Any,
) -> Inference:
    """The E-step: descend the energy until the activities x_0..x_{L-1} have come to rest.

    It is inference with a tolerance: the other options, and the errors raised, are those of
    `predictive_coding.infer`.
    """
    return infer(params, x, y, steps=steps, tolerance=tolerance, **options)


@checked
def rule(*, steps: Count = 1000, tolerance: Tolerance = 1e-3, **options: Any) -> Rule:
    """Settle, then take one Hebbian step: expectation, maximisation.

    It is the rule of predictive coding with a tolerance: the other options, and the errors
    raised, are those of `predictive_coding.rule`.
    """
    return predictive_coding.rule(steps=steps, tolerance=tolerance, **options)


@checked
@picklable
def incremental_rule(
    optimizer: optax.GradientTransformation,
    *,
    steps: Count = 20,
    rate: Positive = 0.1,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """Move activities and weights together, at each of the `steps` (Salvatori et al. 2024).

    A batch then changes the weights `steps` times, each by the rule's own `optimizer`, whose
    memory is the rule's state. The update returned is all of that at once, so train with
    `optax.sgd(1.0)`. Raises ValueError for steps < 1, rate <= 0, precision <= 0 or an
    unknown name.
    """
    output_loss, energy = find_loss(loss), chain(activation, loss)

    def gradient(params, memory, x, y, key):
        clamps = Clamps(x, y, precision, weigh(sample_weight, x, y))

        def velocity(xs, learned):
            params, memory = learned
            update, memory = optimizer.update(energy.update(params, xs, clamps), memory, params)
            learned = optax.apply_updates(params, update), memory
            return energy.velocity(params, xs, clamps), learned

        start, begin = energy.start(params, clamps), (params, memory)
        end, memory = relax(velocity, start, steps=steps, rate=rate, memory=begin).memory
        value = weighted(output_loss(forward(params, x, activation), y), clamps.weight).mean()
        return value, jax.tree.map(jnp.subtract, params, end), memory

    return Rule(
        "incremental", lambda key, params: optimizer.init(params), gradient, predictor(activation)
    )


@checked
def target_alignment(
    params: Params,
    update: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    rate: Finite,
    activation: Named = "tanh",
) -> Float[Array, " batch"]:
    """How directly a step of the weights moves each output towards its target.

    The cosine between the way that the output went, when the weights descended `update` at
    the learning `rate`, and the way to the target: 1 is straight there (Song et al. 2024).
    Raises ValueError for an update or a target that does not fit.
    """
    check_alike("params", params, update=update)
    check_width("y", y, len(params[-1].W), "output", len(x))
    before = forward(params, x, activation)
    after = forward(jax.tree.map(lambda p, u: p - rate * u, params, update), x, activation)
    went, way = after - before, y - before
    return (went * way).sum(-1) / jnp.linalg.norm(went, axis=-1) / jnp.linalg.norm(way, axis=-1)


@checked
def linear_equilibrium(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    precision: Precision = 1.0,
) -> Activities:
    """Where the activities x_0..x_{L-1} of a linear network come to rest, in closed form.

    Errors are e_L = S^-1 (y - mu_L), mu_L of the forward pass, and e_l = e_{l+1} W_{l+1}
    below, S being that of `predictive_coding.lent_variance`. Raises ValueError for a target
    that does not fit.
    """
    check_width("y", y, len(params[-1].W), "output", len(x))
    pis = layer_precisions(params, precision)
    S, chains = lent_variance(params, precision)
    e = jnp.linalg.solve(S, (y - forward(params, x, "identity")).T).T
    xs = [x]
    for layer, P, pi in zip(params, chains, pis):
        xs.append(predict(layer, xs[-1]) + (e @ P if pi is None else e @ P / pi))
    return xs


@checked
def linear_targets(params: Params, y: Float[Array, "batch n_L"]) -> Activities:
    """The activities x_0..x_{L-1} that a linear network of square layers turns into `y`.

    These are the targets of target propagation with exact inverses (Lee et al. 2015):
    x_{l-1} = W_l^-1 (x_l - b_l), x_L = y. Raises ValueError for layers that are not square.
    """
    for l, layer in enumerate(params):
        if len(layer.W) != layer.W.shape[1]:
            raise ValueError(f"params[{l}].W has shape {layer.W.shape}: must be square")
    check_width("y", y, len(params[-1].W), "output")
    ts = [y]
    for layer in reversed(params):
        offset = 0 if layer.b is None else layer.b
        ts.insert(0, jnp.linalg.solve(layer.W, (ts[0] - offset).T).T)
    return ts[:-1]


def _split(precision: Precision) -> tuple:
    """The precisions of the hidden layers, None if they are 1, and that of the output."""
    if isinstance(precision, (list, tuple)):
        return precision[:-1], precision[-1]
    return None, precision


@checked
@picklable
def equilibrium_propagation(
    nudge: Nudge,
    *,
    steps: Count = 1000,
    rate: Positive = 0.1,
    tolerance: Tolerance = 1e-3,
    symmetric: bool = True,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """The rule of equilibrium propagation, on the energy of predictive coding.

    The output is free, and nudged by beta |y - x_L|^2 / 2. At rest its error is that of a
    clamped target of precision pi beta / (pi + beta), and with no nudge all errors are zero. So
    the contrast of the two phases, [dF/dW(beta) - dF/dW(0)] / beta, is the update of
    predictive coding, divided by beta; `symmetric`, that of beta and -beta (Laborieux et
    al. 2021). Any other loss nudges the prediction itself, by beta loss(mu_L, y), and the
    output has no precision. Raises ValueError unless 0 < nudge < 1, and less than the
    precision of the output, and where `settle` does.
    """
    squared = find_loss(loss) is LOSSES["squared error"]
    hidden, output = _split(precision)
    if squared:
        check_number(
            f"less than {output!r}, the precision of the output",
            lambda value: (value < jnp.asarray(output)).all(),
            nudge=nudge,
        )

    def nudged(x, y, beta):
        pull = output * beta / (output + beta) if squared else beta
        return Clamps(x, y, pull if hidden is None else [*hidden, pull])

    return contrast(
        "equilibrium propagation",
        chain(activation, loss),
        predictor(activation),
        find_loss(loss),
        nudged=nudged,
        nudge=nudge,
        symmetric=symmetric,
        sample_weight=sample_weight,
        steps=steps,
        rate=rate,
        tolerance=tolerance,
    )


# --- criteria of the claims ---


@criterion("il-interference")
def spares_what_was_right(m: Measurement) -> bool:
    """Whether the worst error of the smell is below a third of backprop's and both rules learned.

    `left` is the largest distance to the target at which either rule ends.
    """
    return bool(m["inference"] < m["backprop"] / 3 and m["left"] < 0.02)


@criterion("il-target-alignment")
def aligns_better(m: Measurement) -> bool:
    """Whether the mean alignment is above backprop's by more than 0.2, for both kinds of weights.

    `random` and `orthogonal` are (rules, seeds), backprop first.
    """
    return all(np.diff(np.mean(m[kind], axis=1)) > 0.2 for kind in ("random", "orthogonal"))


@criterion("il-online")
@criterion("il-drift")
def errs_less(m: Measurement) -> bool:
    """Whether the test error, in percent, is lower by over one point, and its interval above 0."""
    return exceeds(m["ahead"], 1)


@criterion("il-small-data")
def errs_less_from_every_number_of_images(m: Measurement) -> bool:
    """Whether `errs_less` holds for each row of `ahead`, (numbers of images, seeds)."""
    return all(exceeds(row, 1) for row in m["ahead"])


@criterion("il-incremental")
def learns_faster(m: Measurement) -> bool:
    """Whether the error is lower by over 5 points at equal batches, and over 1 at equal updates."""
    return bool(np.mean(m["batches"]) > 5 and np.mean(m["updates"]) > 1)


@criterion("il-target-propagation")
def rests_at_the_targets(m: Measurement) -> bool:
    """Whether the largest relative distance to the targets is below 1e-4, for both weights."""
    return bool(max(np.max(m["orthogonal"]), np.max(m["random"])) < 1e-4)


@criterion("il-critical-points")
def loses_the_slope(m: Measurement) -> bool:
    """Whether the slope of the loss ends below one percent of its start in every seed."""
    return bool(np.max(m["slope"]) < 1)


@criterion("il-strict-saddle")
def curves_by_the_target(m: Measurement) -> bool:
    """Whether the least curvatures are -E[y^2] of the energy and 0 of the loss.

    `energy` and `loss` are the largest distances to these two.
    """
    return bool(max(m["energy"], m["loss"]) < 1e-4)


@criterion("il-escape")
def escapes_sooner(m: Measurement) -> bool:
    """Whether the median number of updates is less than a third of backprop's."""
    return bool(3 * m["inference"] < m["backprop"])


@criterion("il-equilibrium-propagation")
def falls_by_the_order(m: Measurement) -> bool:
    """Whether the exponents of the nudge in the error are near 1, one-sided, and 2, symmetric."""
    return bool(0.9 < m["one_sided"] < 1.1 and 1.8 < m["symmetric"] < 2.2)
