"""Other networks with the same fixed input: pixel i drives unit i."""

import jax.numpy as jnp
from jax import nn, random

from pcbook.core.arguments import Index, Share, checked
from pcbook.emergence.energy_efficiency import Network, init


def _weights(key, names: str, units: int):
    """Square weights between the `units`, under each letter of `names`."""
    return {name: init(k, units) for name, k in zip(names, random.split(key, len(names)))}


def _silence(width):
    """The state before the first image of a network of `width(params)` units: all zero."""
    return lambda params, batch: jnp.zeros((batch, width(params)))


def _biased_step(params, h, x, transmit):
    a = (h * transmit) @ params["W"] + params["b"] + x
    return a, nn.relu(a)


BIASED = Network(
    "bias",
    lambda key, pixels: {"W": init(key, pixels), "b": jnp.zeros(pixels)},
    _silence(lambda params: len(params["b"])),
    _biased_step,
)


def _bias_only_step(params, h, x, transmit):
    # No unit reaches another. What is left is the best fixed guess, made also at the first image.
    a = params["b"] + x
    return a, nn.relu(a)


BIAS_ONLY = Network(
    "bias only",
    lambda key, pixels: {"b": jnp.zeros(pixels)},
    _silence(lambda params: len(params["b"])),
    _bias_only_step,
)


@checked
def latent(units: Index) -> Network:
    """The recurrent network with so many more `units`, which no pixel drives."""

    def step(W, h, x, transmit):
        a = (h * transmit) @ W + jnp.pad(x, ((0, 0), (0, units)))
        return a, nn.relu(a)

    return Network(
        f"{units} latent units",
        lambda key, pixels: init(key, pixels + units),
        _silence(len),
        step,
    )


def _two_layers_step(params, h, x, transmit):
    # The second layer receives the first at the same image and sends to it at the next.
    W, pixels = params, x.shape[1]
    lower, upper = jnp.split(h * transmit, 2, axis=1)
    transmit = jnp.broadcast_to(transmit, (2 * pixels,))
    a1 = lower @ W["a"] + upper @ W["b"] + x
    a2 = (nn.relu(a1) * transmit[:pixels]) @ W["c"] + upper @ W["d"]
    a = jnp.concatenate([a1, a2], axis=1)
    return a, nn.relu(a)


TWO_LAYERS = Network(
    "two layers",
    lambda key, pixels: _weights(key, "abcd", pixels),
    _silence(lambda params: 2 * len(params["a"])),
    _two_layers_step,
)


def _gru_step(params, h, x, transmit):
    sent = h * transmit
    z, r = (nn.sigmoid(sent @ params[gate]) for gate in "zr")
    a = (r * sent) @ params["W"] + x
    return a, (1 - z) * h + z * nn.relu(a)


GRU = Network(
    "GRU",
    lambda key, pixels: _weights(key, "Wzr", pixels),
    _silence(lambda params: len(params["W"])),
    _gru_step,
)


def _lstm_step(params, state, x, transmit):
    h, cell = state
    sent = h * transmit
    i, f, o = (nn.sigmoid(sent @ params[gate]) for gate in "ifo")
    a = sent @ params["W"] + x
    cell = f * cell + i * nn.relu(a)
    return a, (o * cell, cell)


LSTM = Network(
    "LSTM",
    lambda key, pixels: _weights(key, "Wifo", pixels),
    lambda params, batch: (jnp.zeros((batch, len(params["W"]))),) * 2,
    _lstm_step,
)


@checked
def leaky(leak: Share) -> Network:
    """Units in continuous time, one Euler step for each image: a = (1 - leak) a + h W + x.

    At leak 1 it is the recurrent network.
    """

    def step(W, a, x, transmit):
        a = (1 - leak) * a + (nn.relu(a) * transmit) @ W + x
        return a, a

    return Network(f"leak {leak:g}", init, _silence(len), step)


def _inhibitory_step(W, h, x, transmit):
    a = (h * transmit) @ -jnp.abs(W) + x
    return a, nn.relu(a)


# Our own: every synapse inhibits. No unit can be raised above its pixel, so none can represent
# a digit that is not shown.
INHIBITORY = Network("inhibition only", init, _silence(len), _inhibitory_step)
