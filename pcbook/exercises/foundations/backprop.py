"""The exercises of the chapter *backprop*."""

import numpy as np

from pcbook.exercises import NotYet, each, expect


def slope(answer) -> str:
    """The derivative of softplus, log(1 + exp(x))."""
    x = np.linspace(-3, 3, 13)
    rise = (np.logaddexp(0, x + 1e-5) - np.logaddexp(0, x - 1e-5)) / 2e-5
    expect(
        each(answer, x),
        rise,
        "Nudge x a little and see how much softplus rises: never less than 0, never more than 1.",
        rtol=1e-3,
    )
    return "It is the sigmoid: a neuron's slope can be read off its own activity."


def blame(answer) -> str:
    """One step down: delta_l from delta_{l+1}, W_{l+1} and x_l, for phi = tanh."""
    rng = np.random.default_rng(0)
    x, W, target = rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=(4, 2))

    def losses(x):
        return ((np.tanh(x) @ W.T - target) ** 2).sum(1) / 2

    delta = np.tanh(x) @ W.T - target
    nudged = [(losses(x + h) - losses(x - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
    expect(
        answer(delta, W, x),
        np.transpose(nudged),
        "Nudging x changes the loss by another amount. Does every unit send its blame back through "
        "its own weight, and does the slope of tanh at x multiply what arrives?",
        rtol=1e-3,
    )
    return "The same weights, read backwards: that is what no synapse can do."


def update(answer) -> str:
    """The slope of the mean loss by W_l, from delta_l and x_{l-1}, for phi = tanh."""
    rng = np.random.default_rng(1)
    x, W, target = rng.normal(size=(5, 3)), rng.normal(size=(2, 3)), rng.normal(size=(5, 2))

    def loss(W):
        return ((np.tanh(x) @ W.T - target) ** 2).sum(1).mean() / 2

    nudged = np.empty_like(W)
    for place in np.ndindex(W.shape):
        h = np.zeros_like(W)
        h[place] = 1e-5
        nudged[place] = (loss(W + h) - loss(W - h)) / 2e-5
    value = np.asarray(answer(np.tanh(x) @ W.T - target, x), float)
    if np.allclose(value, 5 * nudged, rtol=1e-3):
        raise NotYet("That is the sum over the batch: the loss is the mean over its samples.")
    expect(
        value,
        nudged,
        "Nudging a weight changes the loss by another amount. Does the blame of the unit above "
        "meet what the unit below *sends*, which is tanh of its activity?",
        rtol=1e-3,
    )
    return "Each synapse needs two numbers, one from either end: this half of backprop is local."


def flops(answer) -> str:
    """Operations of one step of backprop, 784-256-256-10, batch 64, products alone."""
    up = 64 * (784 * 256 + 256 * 256 + 256 * 10)
    down = 64 * (256 * 256 + 256 * 10)
    if np.allclose(answer, 2 * up + down, rtol=0.002):
        raise NotYet("You counted multiplications: each comes with an addition.")
    if np.allclose(answer, 6 * up, rtol=0.002):
        raise NotYet("Close: but nobody asks the input for its share of the blame.")
    hint = "Count three products: up, down, and one for the weights; all three layers of weights."
    expect(answer, 4 * up + 2 * down, hint, rtol=0.005)
    return "Backprop costs a little over twice what the prediction alone costs."


def waiting(answer) -> str:
    """Share of the ticks of one image that a layer of a network of some depth waits."""
    depths = np.array([1, 2, 5, 10, 100])
    expect(
        each(answer, map(int, depths)),
        (2 * depths - 2) / (2 * depths),
        "An image takes one tick a layer on the way up and one on the way down. In how many of "
        "them does a layer work?",
    )
    return "A layer of a hundred rests 99% of the time, and cannot know when it will be needed."
