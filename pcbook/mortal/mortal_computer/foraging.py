"""Foraging by run and tumble, as bacteria do, on the free energy of the food that is sensed.

The creature expects the most food there is, r. With s the food that it senses through noise,

    F = (r - s)^2 / 2.

It keeps its direction while F falls and draws a new one when F has risen (Berg & Brown 1972).
The food is a Gaussian hill of height r at the centre of a square whose opposite edges are joined.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Key

from pcbook.core.arguments import Count, NotNegative, Share, checked
from pcbook.core.checks import check_number

RICHEST = 3.0  # r: food (energy) a step at the source
REACH = 0.2  # width of the food around it
SPEED = 0.03  # length of a step


class Manner(NamedTuple):
    """How to move: the probability to tumble after F rose, and after it fell; the speed."""

    worse: Share
    better: Share
    speed: NotNegative = SPEED


MANNERS = {
    "free energy": Manner(1.0, 0.0),
    "random": Manner(0.5, 0.5),
    "sessile": Manner(0.0, 0.0, 0.0),
}


@checked
def plenty(place: Float[Array, "*n 2"]) -> Float[Array, "*n"]:
    """Food (energy a step) at a place of the square [-1/2, 1/2)^2."""
    return RICHEST * jnp.exp(-(place**2).sum(-1) / (2 * REACH**2))


@checked
def forage(
    key: Key[Array, ""], manner: Manner, *, steps: Count, noise: NotNegative = 0.01
) -> tuple[Float[Array, "steps 2"], Float[Array, " steps"]]:
    """Run and tumble: the place and the food of every step.

    With F = (RICHEST - s)^2 / 2 and s the food sensed with `noise`, the creature tumbles with
    probability `manner.worse` where F rose in the last step, and `manner.better` where it fell.
    """
    place_key, head_key, turn_key, grain_key, coin_key = random.split(key, 5)

    def step(carry, now):
        place, heading, before = carry
        grain, coin, turn = now
        F = (RICHEST - plenty(place) - noise * grain) ** 2 / 2
        tumbles = coin < jnp.where(before < F, manner.worse, manner.better)
        heading = jnp.where(tumbles, turn, heading)
        stride = manner.speed * jnp.stack([jnp.cos(heading), jnp.sin(heading)])
        place = (place + stride + 0.5) % 1 - 0.5
        return (place, heading, F), (place, plenty(place))

    start = random.uniform(place_key, (2,), minval=-0.5, maxval=0.5)
    moments = (
        random.normal(grain_key, (steps,)),
        random.uniform(coin_key, (steps,)),
        random.uniform(turn_key, (steps,), maxval=2 * jnp.pi),
    )
    carry = (start, random.uniform(head_key, maxval=2 * jnp.pi), jnp.array(jnp.inf, float))
    return lax.scan(step, carry, moments)[1]


@checked
def lifetimes(
    food: Float[np.ndarray, "creatures steps"], budget: float | int, cost: NotNegative = 1.0
) -> Float[np.ndarray, " creatures"]:
    """The step at which the energy of each creature is gone, or infinity if it never is.

    It starts with a full `budget` and never holds more. Raises ValueError for a
    budget that is not positive.
    """
    check_number("a positive number", lambda value: value > 0, budget=budget)
    energy, died = np.full(len(food), float(budget)), np.full(len(food), np.inf)
    for t, meal in enumerate(np.asarray(food, float).T):
        energy = np.minimum(budget, energy + meal - cost)
        died = np.where((energy <= 0) & np.isinf(died), t + 1, died)
    return died
