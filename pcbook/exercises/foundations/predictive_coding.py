"""The exercises of the chapter *predictive_coding*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def fusion(answer) -> str:
    """Posterior mean of a size with a Gaussian prior, seen directly through Gaussian noise."""
    expect(
        answer(3.0, 1.0, 5.0, 1.0),
        4.0,
        "Prior and sensor are equally sure here: the answer is half way between 3 and 5.",
    )
    expect(
        answer(3.0, 1.0, 5.0, 4.0),
        (3 + 5 / 4) / (1 + 1 / 4),
        "Now the sensor has four times the variance. Weigh each by its precision, 1 / variance.",
    )
    return "An average weighted by precision: whoever is surer counts for more."


def middle(answer) -> str:
    """Equilibrium of x_1 in the linear chain x_0 -> x_1 -> y with weights w_1 and w_2."""
    rng = np.random.default_rng(0)
    for x0, y, w1, w2 in rng.normal(size=(5, 4)):
        grid = np.linspace(-8, 8, 160_001)
        energy = (grid - w1 * x0) ** 2 / 2 + (y - w2 * grid) ** 2 / 2
        expect(
            answer(x0, y, w1, w2),
            grid[energy.argmin()],
            "That is not the lowest point of the energy. Set its derivative by x_1 to zero: "
            "x_1 - w_1 x_0 - w_2 (y - w_2 x_1) = 0.",
            atol=1e-3,
        )
    return "Two springs, and a weight that decides how hard the upper one pulls."


def velocity(answer) -> str:
    """How inference moves a tanh layer: from its error, the error above, the weights and x."""
    rng = np.random.default_rng(1)
    x, mu, W, above = (rng.normal(size=shape) for shape in ((1, 3), (1, 3), (2, 3), (1, 2)))

    def energy(x):
        return ((x - mu) ** 2).sum() / 2 + ((above - np.tanh(x) @ W.T) ** 2).sum() / 2

    e, e_above = x - mu, above - np.tanh(x) @ W.T
    uphill = [(energy(x + h) - energy(x - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
    if np.allclose(np.asarray(answer(e, e_above, W, x), float).ravel(), uphill, rtol=1e-3):
        raise NotYet("That climbs the energy: inference goes down.")
    expect(
        answer(e, e_above, W, x),
        [-np.array(uphill)],
        "That is not the downhill slope of the energy. The layer's own error pulls it back; the "
        "error above pushes, through the weights and the slope of tanh at x.",
        rtol=1e-3,
    )
    return "Nothing in it comes from further away than the next layer."


def price(answer) -> str:
    """Products of a step of predictive coding over backprop's, 784-256-256-10, T = 20."""
    first, second, third = 784 * 256, 256 * 256, 256 * 10
    weights = first + second + third
    forward, each_step, update = weights, 2 * (second + third), (second + third) + weights
    ratio = (forward + 20 * each_step + update) / (2 * weights + second + third)
    careless = (forward + 20 * (each_step + first) + update) / (2 * weights + second + third)
    if np.isclose(answer, careless, rtol=0.04):
        raise NotYet("The input does not move: its prediction mu_1 is computed once, not 20 times.")
    expect(
        answer,
        ratio,
        "Count, in units of batch x n x m: one pass up; 20 steps with a product up and one down "
        "for the second and third weights; then one more error, and the update of all weights.",
        rtol=0.04,
    )
    return "Over five times the price of backprop: the chapters on inference ask what can be done."
