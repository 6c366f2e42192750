"""Growth along the gradient: a network that adds hidden neurons where the energy is steepest.

Candidate neurons with random input synapses compete. With e the error of the output and phi(x)
the activity of a candidate, the slope of the free energy at its absent output synapse is

    dF/dw = -mean(e phi(x)),        w = 0,

known at the two ends of the synapse. The steepest candidate is added with w = 0, and the network
learns by predictive coding before the next one is added. (The score is that of cascade
correlation, without its normalisation: Fahlman & Lebiere 1990.)
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Key

from pcbook.core.arguments import Share, checked
from pcbook.core.network import Layer, Params, forward
from pcbook.core.relaxation import Number
from pcbook.core.rules import step
from pcbook.foundations.predictive_coding import rule
from pcbook.mortal.mortal_computer.neat import XOR

UNITS = 5  # hidden neurons, in the end
CANDIDATES = 16  # for each new neuron
STRETCH = 200  # updates before the next neuron


def sprout(
    key: Key[Array, ""],
    params: Params,
    unit: int | Int[Array, ""],
    x: Float[Array, "batch 2"],
    y: Float[Array, "batch 1"],
    by_gradient: Number,
) -> Params:
    """Add a hidden neuron at index `unit`, with an output synapse of zero.

    Of the candidates, the one of the largest slope |mean(e phi(x))| is added; with `by_gradient`
    0, a random one.
    """
    first, last = params
    weight_key, bias_key = random.split(key)
    W = 2 * random.normal(weight_key, (CANDIDATES, 2))
    b = 2 * random.normal(bias_key, (CANDIDATES,))
    e = y - forward(params, x)
    slope = jnp.abs((e * jnp.tanh(x @ W.T + b)).mean(0))
    best = jnp.argmax(slope * by_gradient)
    return [Layer(first.W.at[unit].set(W[best]), first.b.at[unit].set(b[best])), last]


def _update_grown(params, there, x, y, key):
    """The update of predictive coding for the hidden neurons that are `there`; zero for others."""
    loss, (first, last), _ = rule(steps=20).gradient(params, (), x, y, key)
    first = Layer(first.W * there[:, None], first.b * there)
    return loss, [first, Layer(last.W * there, last.b)], there


@checked
def grow(
    key: Key[Array, ""], *, by_gradient: Share = 1.0
) -> tuple[Params, Float[Array, " stages"], Bool[Array, " stages"]]:
    """Learn XOR by predictive coding, and add a hidden neuron after each STRETCH of updates.

    Grows from no hidden neuron to UNITS. Returns the last network and, at the end of each
    stretch, the loss and whether XOR is solved.
    """
    x, y = jnp.array(XOR[0], float), jnp.array(XOR[1], float)[:, None]
    adam = optax.adam(0.03)
    learn_from = step(_update_grown, adam)

    def stage(params, now):
        unit, key = now
        there = jnp.arange(UNITS) < unit
        params = jax.tree.map(
            lambda new, old: jnp.where(unit > 0, new, old),
            sprout(key, params, unit - 1, x, y, by_gradient),
            params,
        )

        carry = (params, there, adam.init(params))
        (params, *_), losses = lax.scan(
            lambda carry, _: learn_from(carry, (x, y, key)), carry, length=STRETCH
        )
        solved = ((forward(params, x) > 0.5) == (y > 0.5)).all()
        return params, (losses[-1], solved)

    nothing = [
        Layer(jnp.zeros((UNITS, 2)), jnp.zeros(UNITS)),
        Layer(jnp.zeros((1, UNITS)), jnp.zeros(1)),
    ]
    moments = (jnp.arange(UNITS + 1), random.split(key, UNITS + 1))
    params, (losses, solved) = lax.scan(stage, nothing, moments)
    return params, losses, solved
