"""Predictive coding without a clock: neurons update at random times, each on its own.

At each tick, every neuron i independently moves down the energy with probability p,

    x_i <- x_i - rate dF/dx_i.

The equilibrium of the energy does not depend on the order of the updates.
"""

import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, Key

from pcbook.core import network
from pcbook.core.network import Params, check_number
from pcbook.foundations.predictive_coding import Number, check_inference, errors, velocities


def infer_without_clock(
    params: Params,
    x: Float[Array, "batch n_0"],
    y: Float[Array, "batch n_L"],
    *,
    ticks: int,
    chance: Number,
    rate: Number,
    activation: str = "tanh",
    key: Key[Array, ""],
) -> list[Float[Array, "moments batch _"]]:
    """Descend the energy with every neuron moving at a tick with probability `chance`.

    At a chance of 1 all neurons move at once, as with a clock; at small chances mostly one
    after the other, in random order. Returns x_0..x_{L-1} at the ticks + 1 moments. Raises
    ValueError for ticks < 1, rate <= 0 or a chance outside (0, 1].
    """
    check_inference(ticks, rate, 1.0)
    check_number("above 0, and at most 1", lambda value: 0 < value <= 1, chance=chance)

    def tick(xs, key):
        _, *vs = velocities(params, xs, errors(params, xs, y, activation), activation)
        keys = random.split(key, len(vs))
        moves = [random.bernoulli(k, chance, v.shape) * v for k, v in zip(keys, vs)]
        xs = [xs[0], *(x + rate * move for x, move in zip(xs[1:], moves))]
        return xs, xs

    start = network.activities(params, x, activation)[:-1]
    _, path = lax.scan(tick, start, random.split(key, ticks))
    return [jnp.concatenate([first[None], later]) for first, later in zip(start, path)]
