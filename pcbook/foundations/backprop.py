"""Backprop: who is to blame, and by how much?

The loss is a function of the last layer, yet every synapse must change. Backprop
passes the blame down through the same weights that passed the activity up,

    delta_L = dLoss/dmu_L,        delta_l = (W_{l+1}^T delta_{l+1}) * phi'(x_l),
    dLoss/dW_l = delta_l r_{l-1}^T,        r_0 = x_0,  r_l = phi(x_l)

(Rumelhart, Hinton & Williams 1986, eqs. 4 to 7). Vectors are columns in the equations and
rows, a sample each, in the code. The update of a synapse is the product of what its two ends
hold, but delta had to travel: through a transpose, in a phase of its own, while layers wait.

Chapter: book/foundations/backprop.ipynb
"""

import math
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int, Key

from pcbook.core.arguments import Count, checked
from pcbook.core.checks import check_length, check_width
from pcbook.core.network import (
    LOSSES,
    Activities,
    Layer,
    Named,
    Params,
    activities,
    find_activation,
    find_loss,
    firing,
    hebbian,
    like_biases,
    predictor,
)
from pcbook.core.pickling import picklable
from pcbook.core.rules import Rule, stateless


@checked
@cache
@picklable
def rule(activation: Named = "tanh", loss: Named = "squared error") -> Rule:
    """Learn by backprop: up with the activity, down with the blame, then update.

    Raises ValueError for an unknown activation or loss.
    """
    output_loss = find_loss(loss)

    def gradient(params, state, x, y, key):
        xs = activities(params, x, activation)
        check_width("y", y, xs[-1].shape[1], "output", len(x))
        ds = deltas(params, xs, output_loss.slope(xs[-1], y), activation)
        update = like_biases(params, weight_gradients(xs, ds, activation))
        return output_loss(xs[-1], y).mean(), update, state

    return Rule("backprop", stateless, gradient, predictor(activation))


@checked
def deltas(
    params: Params, xs: Activities, delta: Float[Array, "batch n_L"], activation: Named = "tanh"
) -> Activities:
    """Backward pass: the blame dLoss/dx_l of the layers l = 1..L, given that of the output."""
    phi = find_activation(activation)
    check_length(len(params) + 1, "one for each layer and the input", xs=xs)
    check_width("delta", delta, len(params[-1].W), "output", len(xs[-1]))
    ds = [delta]
    for layer, x in zip(params[:0:-1], xs[-2:0:-1]):
        ds.insert(0, (ds[0] @ layer.W) * phi.slope(x))
    return ds


@checked
def weight_gradients(xs: Activities, ds: Activities, activation: Named = "tanh") -> list[Layer]:
    """dLoss/dW_l and dLoss/db_l, means over the batch: the blame above times the firing below."""
    check_length(len(xs) - 1, "one for each layer above the input", ds=ds)
    return [hebbian(d, r) for d, r in zip(ds, firing(xs[:-1], activation))]


@checked
@cache
@picklable
def rule_for_last_layer(activation: Named = "tanh", loss: Named = "squared error") -> Rule:
    """Backprop that changes the last layer alone: the baseline of what needs no blame sent down.

    The hidden layers stay as they were drawn. Raises ValueError as `rule` does.
    """
    output_loss = find_loss(loss)

    def gradient(params, state, x, y, key):
        xs = activities(params, x, activation)
        last = hebbian(output_loss.slope(xs[-1], y), firing(xs, activation)[-2])
        still = jax.tree.map(jnp.zeros_like, params[:-1])
        return output_loss(xs[-1], y).mean(), [*still, *like_biases(params[-1:], [last])], state

    return Rule("last layer only", stateless, gradient, predictor(activation))


@checked
@picklable
def rule_with_feedback(
    agreement: float, activation: Named = "tanh", loss: Named = "squared error"
) -> Rule:
    """Backprop whose blame comes down through weights of its own, not through the transpose.

    The state is those weights, B_l = a W_l + sqrt(1 - a^2) noise of the scale of W_l, drawn
    once for the `agreement` a and never changed: 1 starts from the transpose, 0 from chance
    (Lillicrap et al. 2016), -1 from the wrong sign. Raises ValueError for |a| > 1.
    """
    if not -1 <= agreement <= 1:
        raise ValueError(f"agreement = {agreement}: must be -1 to 1")

    def mix(layer, key):
        noise = random.normal(key, layer.W.shape) * layer.W.std()
        return layer._replace(W=agreement * layer.W + math.sqrt(1 - agreement**2) * noise)

    def init(key, params):
        # A key that `network.init` splits draws the weights: here a key that no split gives.
        keys = random.split(random.fold_in(key, 2**32 - 1), len(params))
        return [mix(layer, k) for layer, k in zip(params, keys)]

    name = f"feedback that agrees by {agreement:g}"
    return Rule(name, init, _gradient_with_feedback(activation, loss), predictor(activation))


@cache
def _gradient_with_feedback(activation, loss):
    loss = find_loss(loss)

    def gradient(params, feedback, x, y, key):
        xs = activities(params, x, activation)
        ds = deltas(feedback, xs, loss.slope(xs[-1], y), activation)
        update = like_biases(params, weight_gradients(xs, ds, activation))
        return loss(xs[-1], y).mean(), update, feedback

    return gradient


@checked
@picklable
def rule_without_pause(overwritten: float, activation: str = "tanh") -> Rule:
    """Backprop in a network that does not hold still while the blame travels.

    When the blame arrives, a share `overwritten` of what each neuron fired is already that
    of the next image: 0 is backprop, 1 pairs each blame with another image's activity. The
    state is that share. Raises ValueError outside 0 to 1.
    """
    if not 0 <= overwritten <= 1:
        raise ValueError(f"overwritten = {overwritten}: must be 0 to 1")
    name = f"{overwritten:.0%} overwritten"
    gradient = _gradient_without_pause(activation)
    return Rule(name, lambda key, params: jnp.float32(overwritten), gradient, predictor(activation))


@cache
def _gradient_without_pause(activation):
    loss = LOSSES["squared error"]

    def gradient(params, share, x, y, key):
        xs = activities(params, x, activation)
        ds = deltas(params, xs, loss.slope(xs[-1], y), activation)
        late = [(1 - share) * x + share * jnp.roll(x, 1, axis=0) for x in xs]
        return loss(xs[-1], y).mean(), weight_gradients(late, ds, activation), share

    return gradient


IDLE, FORWARD, BACKWARD = 0, 1, 2


@checked
def timeline(depth: Count) -> Int[np.ndarray, "layers ticks"]:
    """What each of `depth` layers does in the 2 * depth ticks that one image takes.

    `IDLE`, `FORWARD` or `BACKWARD`: a layer works twice and waits for the others in between.
    """
    work = np.full((depth, 2 * depth), IDLE)
    layers = np.arange(depth)
    work[layers, layers] = FORWARD
    work[layers, 2 * depth - 1 - layers] = BACKWARD
    return work


@checked
def reach(
    gradient: Callable[[Params], Params], params: Params, key: Key[Array, ""]
) -> Float[np.ndarray, "changed layers"]:
    """How far a change is felt: which updates move when the weights of one layer are redrawn.

    `gradient(params)` gives the update, a list of layers. Entry (k, l) is the relative change
    |dW_l' - dW_l| / |dW_l| of the update of layer l + 1 when layer k + 1 is redrawn.
    """
    before = gradient(params)
    rows = []
    for k, layer in enumerate(params):
        W = random.permutation(random.fold_in(key, k), layer.W.ravel()).reshape(layer.W.shape)
        after = gradient([*params[:k], layer._replace(W=W), *params[k + 1 :]])
        rows.append(
            [jnp.linalg.norm(a.W - b.W) / jnp.linalg.norm(b.W) for a, b in zip(after, before)]
        )
    return np.array(rows)
