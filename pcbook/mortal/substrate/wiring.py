"""Sparse networks whose synapses are exchanged: the weakest are dropped, others are grown.

The energy of predictive coding has a slope at an absent synapse, and its two ends know it,

    dF/dW_ij = -e_i phi(x_j),        W_ij = 0.

After each round of learning a share of the synapses is exchanged. The new ones are those of the
highest score: random in SET (Mocanu et al. 2018), the slope |dF/dW_ij| in RigL (Evci et al. 2020).
`plant` makes a task whose sparse structure is known, so that it can be recovered.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import optax
from jax import lax, random
from jaxtyping import Array, Bool, Float, Key

from pcbook.core import network
from pcbook.core.arguments import Count, Share, checked, finite, share
from pcbook.core.checks import check_alike, check_number, check_width
from pcbook.core.network import Params
from pcbook.core.relaxation import Number
from pcbook.core.rules import Rule, learn

Mask = list[Bool[Array, "_ _"]]


@checked
def draw_mask(key: Key[Array, ""], params: Params, density: Number) -> Mask:
    """Draw the synapses that are present: in each layer a random share `density` of all.

    Raises ValueError unless 0 < density <= 1.
    """
    check_number("above 0, and at most 1", lambda value: 0 < value <= 1, density=density)
    keys = random.split(key, len(params))
    shapes = [layer.W.shape for layer in params]
    return [
        _ranks(random.uniform(k, shape)) < jnp.round(density * shape[0] * shape[1])
        for k, shape in zip(keys, shapes)
    ]


@checked
def apply_mask(params: Params, mask: Mask) -> Params:
    """The parameters, or an update of them, with the weights of absent synapses at zero."""
    check_alike("the weights of params", [layer.W for layer in params], mask=mask)
    return [layer._replace(W=layer.W * there) for layer, there in zip(params, mask)]


@checked
def rewire(
    W: Float[Array, "n_out n_in"],
    there: Bool[Array, "n_out n_in"],
    score: Annotated[Float[Array, "n_out n_in"], finite],
    share: Share,
) -> tuple[Float[Array, "n_out n_in"], Bool[Array, "n_out n_in"]]:
    """Drop a share of the synapses, the weakest, and add as many absent ones of highest score.

    New synapses start at zero. At most as many are exchanged as are absent.
    """
    present = there.sum()
    exchanged = jnp.round(share * jnp.minimum(present, there.size - present))
    kept = there & (_ranks(jnp.where(there, jnp.abs(W), jnp.inf)) >= exchanged)
    grown = _ranks(jnp.where(there, jnp.inf, -score)) < exchanged
    return W * kept, kept | grown


def _ranks(score):
    """The rank of each number, from 0 for the lowest."""
    return jnp.argsort(jnp.argsort(score.ravel())).reshape(score.shape)


@checked
def by_chance(key: Key[Array, ""], slope: Float[Array, "n_out n_in"]) -> Float[Array, "n_out n_in"]:
    """SET: a random score for every synapse (Mocanu et al. 2018)."""
    return random.uniform(key, slope.shape)


@checked
def by_slope(key: Key[Array, ""], slope: Float[Array, "n_out n_in"]) -> Float[Array, "n_out n_in"]:
    """The modulus of the slope (Evci et al. 2020).

    With the slope of backprop this is RigL. That of predictive coding, -e_post phi(pre), is
    known at the two ends of the synapse.
    """
    return jnp.abs(slope)


@checked
def select_structure(
    rule: Rule,
    params: Params,
    mask: Mask,
    x: Float[Array, "rounds batches batch n_0"],
    y: Float[Array, "rounds batches batch n_L"],
    *,
    score: Callable[..., Array],
    shares: Annotated[Float[Array, " rounds"], share],
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
) -> tuple[Params, list[Bool[Array, "moments _ _"]]]:
    """Learn with the present synapses for a round of batches, exchange a share of them, repeat.

    Args:
        rule: a rule without synapses of its own.
        params: of the network; absent synapses are set to zero.
        mask: the synapses that are present at the start.
        x: inputs of each round, batch by batch.
        y: their targets.
        score: `score(key, slope)` rates each absent synapse, given the slope of the rule's loss
            at it over all batches of the round: `by_chance` or `by_slope`.
        shares: the share of synapses to exchange after each round; 0 keeps the structure.
        optimizer: starts anew in each round.
        key: of the rule and of the scores.

    Returns the parameters, and the masks at the start and after each round.
    """

    def learn_and_exchange(carry, now):
        params, mask = carry
        x, y, share, key = now
        learn_key, key = random.split(key)
        params, _ = learn(
            _of_present_synapses(rule, mask),
            params,
            x,
            y,
            optimizer=optimizer,
            watch=lambda params: (),
            every=len(x),
            key=learn_key,
        )
        together = [a.reshape(-1, a.shape[-1]) for a in (x, y)]
        _, slopes, _ = rule.gradient(params, (), *together, key)
        scores = [score(k, slope.W) for k, slope in zip(random.split(key, len(slopes)), slopes)]
        params, mask = exchange(params, mask, scores, share)
        return (params, mask), mask

    check_width("x", x[0, 0], params[0].W.shape[1], "input")
    check_width("y", y[0, 0], len(params[-1].b), "output", x.shape[2])
    start = (apply_mask(params, mask), mask)
    rounds = (x, y, shares, random.split(key, len(x)))
    (params, _), masks = lax.scan(learn_and_exchange, start, rounds)
    return params, [jnp.concatenate([first[None], later]) for first, later in zip(mask, masks)]


@checked
def exchange(
    params: Params, mask: Mask, scores: list[Float[Array, "_ _"]], share: Number
) -> tuple[Params, Mask]:
    """Rewire every layer by the scores of its absent synapses."""
    rewired = [
        rewire(layer.W, there, score, share) for layer, there, score in zip(params, mask, scores)
    ]
    params = [layer._replace(W=W) for layer, (W, _) in zip(params, rewired)]
    return params, [there for _, there in rewired]


def _of_present_synapses(rule, mask):
    """The same rule, with updates of zero for absent synapses."""

    def gradient(*arguments):
        loss, update, state = rule.gradient(*arguments)
        return loss, apply_mask(update, mask), state

    return rule._replace(gradient=gradient)


class Planted(NamedTuple):
    """A task with a structure to recover, and the network that made it."""

    params: Params
    mask: Mask
    x: Float[Array, "*batches batch n_0"]
    y: Float[Array, "*batches batch n_L"]


@checked
def plant(
    key: Key[Array, ""], shape: tuple[Count, ...], units: Count = 24, fan_in: Count = 3
) -> Planted:
    """Draw a network of three layers of `units`, with `fan_in` inputs to each hidden unit.

    Planted weights are +1 or -1. The upper layer is dense and random; a learner that is given it
    cannot permute the hidden units, so that each synapse of the lower layer can be compared.
    `shape` is that of the batches to draw, x ~ N(0, I).
    """
    edge_key, sign_key, top_key, x_key = random.split(key, 4)
    order = jnp.argsort(random.uniform(edge_key, (units, units)), axis=1)
    there = order < fan_in
    W = there * random.rademacher(sign_key, there.shape, jnp.float32)
    top = random.normal(top_key, (units, units)) / units**0.5
    params = [network.Layer(W, jnp.zeros(units)), network.Layer(top, jnp.zeros(units))]
    x = random.normal(x_key, (*shape, units))
    y = network.forward(params, x.reshape(-1, units)).reshape(x.shape)
    return Planted(params, [there, jnp.ones_like(there)], x, y)
