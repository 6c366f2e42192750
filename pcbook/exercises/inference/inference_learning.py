"""The exercises of the chapter *inference_learning*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def first_lesson(answer) -> str:
    """Smell that the bear expects after one lesson, (backprop, inference learning), at a rate."""
    for rate in (0.2, 0.05):
        by_backprop, ours = np.asarray(answer(rate), float)
        smell, hidden, e = np.zeros(2), 1.0, np.array([-1.0, 0.0])
        for i in range(2):
            if i:  # at rest: the least of |h - 1|^2 + |y - h (1, 1)|^2
                hidden = np.linalg.lstsq(np.ones((3, 1)), np.array([1.0, 0.0, 1.0]))[0][0]
                e = np.array([0.0, 1.0]) - hidden
            blame = hidden - 1 if i else e.sum()
            smell[i] = (1 + rate * blame) * (1 + rate * e[1] * hidden)
        expect(
            by_backprop,
            smell[0],
            "Backprop: the error of the smell is zero, so its weight stays; the blame of the "
            "hidden neuron is the error of the sound, -1: its own weight falls by the rate.",
        )
        expect(
            ours,
            smell[1],
            "Inference learning: each weight changes by rate x error after x activity before it, "
            "all of them at rest. The input's activity is 1, the hidden neuron's 2/3. "
            "Then make a new forward pass.",
        )
    return "One weight down, the other up: their product, the smell, hardly moves."


def price(answer) -> str:
    """Products per update of the weights, inference learning over incremental, L = 5, T = 20."""
    L, T = 5, 20
    settling = L + T * 2 * (L - 1) + (L - 1) + L
    moving = L + (L - 1) + L
    if np.isclose(answer, (settling) / (moving - 1), rtol=0.01):
        raise NotYet("In the incremental rule the first weights move too, and mu_1 with them.")
    expect(
        answer,
        settling / moving,
        "(a) one pass up; 20 steps with a product up and one down for layers 2 to 5; the errors "
        "once more; the update of all. (b) all up, since all weights have changed; down; update.",
        rtol=0.01,
    )
    return (
        "An update that does not wait costs a twelfth. Whether it is as good is another question."
    )


def target(answer) -> str:
    """Activities that a layer W tanh(x) + b turns into its target exactly."""
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=(4, 3)) / 2, rng.normal(size=3)
    W = np.eye(3) + rng.normal(size=(3, 3)) / 4
    t = np.tanh(x) @ W.T + b
    found = np.asarray(answer(W, b, t), float)
    if found.shape == x.shape and np.allclose(found, np.tanh(x)):
        raise NotYet("That is what the layer reads, tanh(x). Which activity x makes it?")
    expect(
        found,
        x,
        "Put it through the layer: W tanh(x) + b should be t. Undo the bias, then W, then tanh; "
        "samples are rows, so the code multiplies by W from the right as `r @ W.T`.",
    )
    return "Not blame, but what should have been. It exists as long as t - b is within W's reach."


def chain_energy(answer) -> str:
    """Energy at rest of the linear chain x -> h1 -> h2 -> y with weights w1, w2, w3."""
    rng = np.random.default_rng(1)
    for x, y, w1, w2, w3 in rng.normal(size=(5, 5)):
        # Three springs: h1 - w1 x, h2 - w2 h1, y - w3 h2.
        springs = np.array([[1, 0], [-w2, 1], [0, -w3]])
        held = np.array([w1 * x, 0, -y])
        h = np.linalg.lstsq(springs, held)[0]
        energy = ((springs @ h - held) ** 2).sum() / 2
        value = answer(x, y, w1, w2, w3)
        if np.isclose(value, (y - w3 * w2 * w1 * x) ** 2 / 2):
            raise NotYet("That is the loss, before anything has given way.")
        expect(
            value,
            energy,
            "Set both slopes to zero and put the solution in; or use the formula: P_2 = w3 is what "
            "h2's noise does to the output, P_1 = w3 w2 what h1's does; S = 1 + P_2^2 + P_1^2.",
        )
    return "At w = 0 it already curves, by -E[y^2], along w3: the variance is what breaks the tie."
