"""Predictive coding without a clock: neurons update at random times, each on its own.

At each tick, every neuron i independently moves down the energy with probability p,

    x_i <- x_i - rate dF/dx_i.

The equilibrium of the energy does not depend on the order of the updates.
"""

from typing import Annotated

from jax import random
from jaxtyping import Array, Float, Key

from pcbook.core import network
from pcbook.core.arguments import Allowed, Count, Positive, Scalar, checked
from pcbook.core.energy import Clamps, Inference, Precision, report, warn_if_diverged
from pcbook.core.network import Named, Params
from pcbook.core.relaxation import relax
from pcbook.foundations.predictive_coding import chain, errors_from_firing, velocities

Chance = Annotated[
    Scalar, Allowed("above 0, and at most 1", lambda value: (value > 0) & (value <= 1))
]


@checked
def infer_without_clock(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    *,
    steps: Count,
    rate: Positive,
    chance: Chance,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 1.0,
    key: Key[Array, ""],
) -> Inference:
    """Descend the energy with every neuron moving at a tick with probability `chance`.

    At a chance of 1 all neurons move at once, as with a clock; at small chances mostly one
    after the other, in random order. The `path` holds x_0..x_{L-1} at the steps + 1 moments.
    Warns (RuntimeWarning) as `predictive_coding.infer` does. Raises ValueError for steps < 1,
    rate <= 0, a chance outside (0, 1], precision <= 0, an unknown name, or a shape that does
    not fit.
    """

    def velocity(xs, key):
        es = errors_from_firing(params, xs, network.firing(xs, activation), y, loss, precision)
        _, *vs = velocities(params, xs, es, activation)
        key, *keys = random.split(key, len(vs) + 1)
        moves = [random.bernoulli(k, chance, v.shape) * v for k, v in zip(keys, vs)]
        return [None, *moves], key

    start = network.activities(params, x, activation)[:-1]
    settled = relax(velocity, start, steps=steps, rate=rate, memory=key, trajectory=True)
    energy, clamps = chain(activation, loss), Clamps(x, y, precision)
    found = report(settled, energy, params, clamps, start)
    warn_if_diverged(found, energy, params, clamps, start, rate)
    return found
