"""The exercises of the chapter *backprop*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def slope(answer) -> str:
    """The derivative of softplus, log(1 + exp(x))."""
    x = np.linspace(-3, 3, 13)
    rise = (np.logaddexp(0, x + 1e-5) - np.logaddexp(0, x - 1e-5)) / 2e-5
    expect(
        answer(x),
        rise,
        "Nudge x a little and see how much softplus rises: never less than 0, never more than 1.",
        rtol=1e-3,
    )
    return "It is the sigmoid: a neuron's slope can be read off its own activity."


def blame(answer) -> str:
    """One step down: delta_l from delta_{l+1}, W_{l+1} and x_l, for phi = tanh."""
    rng = np.random.default_rng(0)
    x, W, target = rng.normal(size=(1, 3)), rng.normal(size=(2, 3)), rng.normal(size=(1, 2))

    def loss(x):
        return ((np.tanh(x) @ W.T - target) ** 2).sum() / 2

    delta = np.tanh(x) @ W.T - target
    nudged = [(loss(x + h) - loss(x - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
    expect(
        answer(delta, W, x),
        [nudged],
        "Nudging x changes the loss by another amount. Does every unit send its blame back through "
        "its own weight, and does the slope of tanh at x multiply what arrives?",
        rtol=1e-3,
    )
    return "The same weights, read backwards: that is what no synapse can do."


def flops(answer) -> str:
    """Operations of one step of backprop, 784-256-256-10, batch 64, products alone."""
    up = 64 * (784 * 256 + 256 * 256 + 256 * 10)
    down = 64 * (256 * 256 + 256 * 10)
    if np.isclose(answer, 2 * up + down, rtol=0.02):
        raise NotYet("You counted multiplications: each comes with an addition.")
    if np.isclose(answer, 6 * up, rtol=0.02):
        raise NotYet("Close: but nobody asks the input for its share of the blame.")
    expect(
        answer, 4 * up + 2 * down, "Count three products: up, down, and one for the weights.", 0.02
    )
    return "Backprop costs a little over twice what the prediction alone costs."


def waiting(answer) -> str:
    """Share of the ticks of one image that a layer of a network of some depth waits."""
    depths = np.array([1, 2, 5, 10, 100])
    expect(
        [answer(int(d)) for d in depths],
        (2 * depths - 2) / (2 * depths),
        "An image takes one tick a layer on the way up and one on the way down. In how many of "
        "them does a layer work?",
    )
    return "A layer of a hundred rests 99% of the time, and cannot know when it will be needed."
