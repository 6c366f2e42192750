"""Predictive coding in spikes: activities and errors are sent only when they have changed.

A neuron holds a value r, and its listeners an estimate r_hat of it. It fires when the difference
exceeds half a threshold, and the spike corrects the estimate by the threshold,

    |r - r_hat| > threshold / 2: spike,        r_hat <- r_hat +- threshold

(Boerlin et al. 2013). Activities descend the energy of predictive coding, with every activity and
every error replaced by its estimate. As the threshold vanishes this is predictive coding.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcbook.core.arguments import Count, Positive, Tolerance, checked
from pcbook.core.checks import check_length, check_width
from pcbook.core.energy import Precision, cache_hashable, weigh, weighted
from pcbook.core.network import (
    Activities,
    Named,
    Params,
    find_loss,
    firing,
    hebbian,
    like_biases,
    predict,
)
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import relax
from pcbook.core.rules import Rule, stateless
from pcbook.foundations.predictive_coding import errors_from_firing, velocities


class Spiking(NamedTuple):
    """The end of spiking inference.

    `sent` are the listeners' estimates of the firing of each layer x_0..x_{L-1}, `es` the errors
    e_1..e_L computed from them. `spikes` and `error_spikes` count, for each sample, the spikes
    of the activities and of the errors of each layer.
    """

    xs: Activities
    sent: Activities
    es: Activities
    spikes: list[Float[Array, " batch"]]
    error_spikes: list[Float[Array, " batch"]]


@checked
def send_spikes(
    value: Float[Array, "*shape"],
    told: Float[Array, "*shape"],
    threshold: Positive,
    leak: Tolerance = 0.0,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Send a value by a spike: the listeners' estimate `told` after this step, and -1, 0 or 1.

    The voltage is value - told. Beyond half the threshold the neuron fires, which changes the
    estimate by the threshold. The estimate decays by a share `leak` in each step
    (Boerlin et al. 2013). Raises ValueError for arrays of two shapes, a threshold <= 0 or a
    leak outside [0, 1).
    """
    if value.shape != told.shape:
        raise ValueError(f"told has shape {told.shape}: must be {value.shape}, that of value")
    return _send(value, told, threshold, leak)


def _send(value, told, threshold, leak):
    told = (1 - leak) * told
    spike = jnp.clip(jnp.round((value - told) / threshold), -1, 1)
    return told + threshold * spike, spike


@checked
def settle_by_spikes(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"] | None,
    *,
    steps: Count = 60,
    rate: Positive = 0.2,
    threshold: Positive = 0.1,
    leak: Tolerance = 0.0,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
) -> Spiking:
    """Descend the energy by spikes alone, starting from activities of zero.

    Each activity and each error is sent by `send_spikes`, at most one spike a step, and every
    neuron moves by the estimates it receives. As the threshold vanishes, and the number of
    steps grows, this is predictive coding. Raises ValueError for steps < 1, rate <= 0,
    threshold <= 0, a leak outside [0, 1), precision <= 0, or a shape that does not fit.
    """
    check_width("x", x, params[0].W.shape[1], "input")
    sizes = {"rate": rate, "threshold": threshold, "leak": leak, "precision": precision}
    return _settle_by_spikes(params, x, y, **sizes, steps=steps, activation=activation, loss=loss)


@partial(jax.jit, static_argnames=("steps", "activation", "loss"))
def _settle_by_spikes(params, x, y, *, rate, threshold, leak, precision, steps, activation, loss):
    def tell(values, told):
        pairs = [_send(v, t, threshold, leak) for v, t in zip(values, told)]
        return [t for t, _ in pairs], [jnp.abs(s).sum(-1) for _, s in pairs]

    def velocity(xs, messages):
        sent, told, counts = messages
        sent, spikes = tell(firing(xs, activation), sent)
        es = errors_from_firing(params, xs, sent, y, loss, precision)
        told, error_spikes = tell(es, told)
        _, *vs = velocities(params, xs, es, activation, heard=told)
        counts = jax.tree.map(jnp.add, counts, (spikes, error_spikes))
        return [None, *vs], (sent, told, counts)

    layers = [jnp.zeros((len(x), len(layer.W)), x.dtype) for layer in params]
    silent = [jnp.zeros(len(x), x.dtype)] * len(params)
    messages = ([jnp.zeros_like(x), *layers[:-1]], layers, (silent, silent))
    settled = relax(velocity, [x, *layers[:-1]], steps=steps, rate=rate, memory=messages)
    xs, (sent, _, counts) = settled.state, settled.memory
    return Spiking(xs, sent, errors_from_firing(params, xs, sent, y, loss, precision), *counts)


@checked
@cache_hashable
@picklable
def spiking(
    *,
    steps: Count = 60,
    rate: Positive = 0.2,
    threshold: Positive = 0.1,
    leak: Tolerance = 0.0,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """Learn by predictive coding in spikes, dW = e_post told_pre^T.

    Predictions are made by spikes too, with the output free, where all hidden errors vanish.
    The loss is that of such a prediction. The options are those of `settle_by_spikes` and of
    `predictive_coding.rule`.
    """
    settings = {
        "steps": steps,
        "rate": rate,
        "threshold": threshold,
        "leak": leak,
        "activation": activation,
        "loss": loss,
        "precision": precision,
    }

    def output(params, x):
        settled = settle_by_spikes(params, x, None, **settings)
        return predict(params[-1], settled.sent[-1])

    def gradient(params, state, x, y, key):
        settled = settle_by_spikes(params, x, y, **settings)
        weight = weigh(sample_weight, x, y)
        es = settled.es if weight is None else [weight[:, None] * e for e in settled.es]
        update = like_biases(params, [hebbian(-e, r) for e, r in zip(es, settled.sent)])
        value = weighted(find_loss(loss)(output(params, x), y), weight).mean()
        return value, update, state

    return Rule("spiking predictive coding", stateless, gradient, output)


@checked
def additions(params: Params, settled: Spiking) -> Float[Array, " batch"]:
    """Number of additions for each sample: every synapse that a spike reaches adds its weight.

    A spike of x_l reaches all of layer l + 1, and one of e_l all of layer l - 1, except for the
    input, which is clamped. Raises ValueError for another number of layers than settled.
    """
    check_length(len(settled.spikes), "one for each layer that settled", params=params)
    up = sum(len(layer.W) * count for layer, count in zip(params, settled.spikes))
    down = sum(
        layer.W.shape[1] * count for layer, count in zip(params[1:], settled.error_spikes[1:])
    )
    return up + down
