"""The exercises of the chapter *fast_inference*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def price(answer) -> str:
    """Backprops in `sweeps` sweeps through `depth` equal layers of weights."""
    for depth, sweeps in ((2, 1), (10, 25.5), (50, 100)):
        if np.isclose(answer(depth, sweeps), sweeps):
            raise NotYet("A sweep has two products a layer; backprop has three.")
        expect(
            answer(depth, sweeps),
            (1 + 2 * (depth - 1) * sweeps) / (2 * depth + depth - 1),
            "Count products. Inference: one in the first layer, once, and two a sweep in each of "
            "the others. Backprop: one up and one for the weights in every layer, and one down in "
            "all but the first.",
        )
    return "In a deep network a sweep is two thirds of a backprop."


def slopes(answer) -> str:
    """dF/de_l of a tanh chain: from the weights above each layer, the xs, the es and the top."""
    rng = np.random.default_rng(0)
    Ws = [rng.normal(size=shape) / 2 for shape in ((4, 3), (4, 4), (2, 4))]
    x0, y = rng.normal(size=(1, 3)), rng.normal(size=(1, 2))
    es = [rng.normal(size=(1, 4)) for _ in range(2)]

    def pass_up(es):
        xs = [x0 @ Ws[0].T + es[0]]
        xs.append(np.tanh(xs[0]) @ Ws[1].T + es[1])
        return xs, y - np.tanh(xs[1]) @ Ws[2].T

    def energy(es):
        return sum((e**2).sum() for e in [*es, pass_up(es)[1]]) / 2

    target = []
    for l in range(2):
        nudges = 1e-5 * np.eye(4)[:, None]
        energies = [
            [energy([e + s * h * (k == l) for k, e in enumerate(es)]) for s in (1, -1)]
            for h in nudges
        ]
        target.append([(up - down) / 2e-5 for up, down in energies])
    xs, top = pass_up(es)
    found = [np.asarray(g, float) for g in answer(Ws[1:], xs, es, top)]
    next_door = es[0] - es[1] @ Ws[1] * (1 - np.tanh(xs[0]) ** 2)
    if np.allclose(found[0], next_door, rtol=1e-3):
        raise NotYet("That hands down the error next door. The blame comes from the very top.")
    expect(
        [g.ravel() for g in found],
        target,
        "That is not the slope. Send the blame down: start with the output's error, go through "
        "the weights and the slope of tanh at each x. A layer's slope is its error less the blame.",
        rtol=1e-3,
    )
    return "A layer's own error less the blame from the top: nought means that they agree."


def condition(answer) -> str:
    """Largest over smallest curvature of a chain with L weights, all 1."""
    n = 19
    curvature = np.linalg.eigvalsh(2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
    exact = curvature[-1] / curvature[0]
    if np.isclose(answer, np.sqrt(exact), rtol=0.1):
        raise NotYet("That is the square root: the curvatures are squares of sines.")
    expect(
        answer,
        exact,
        "The largest curvature is close to 4, the smallest is 2 - 2 cos(pi / L), about (pi / L)^2.",
        rtol=0.05,
    )
    return "It grows with the square of the depth: four times the steps for twice the layers."


def stays(answer) -> str:
    """Whether a relu unit with the error e, pushed by the layer above, rests at x = 0."""
    rng = np.random.default_rng(2)
    for e, push in [*rng.normal(size=(20, 2)), (-1.0, -2.0), (-1.0, 0.5), (1.0, -1.0), (1.0, 2.0)]:
        # Energy near the kink, for a step h: the own error's part and what the relu passes on.
        rise = [((e + h) ** 2 - e**2) / 2 - push * max(h, 0.0) for h in (1e-6, -1e-6)]
        if bool(answer(e, push)) != all(change > 0 for change in rise):
            raise NotYet(
                f"Not for e = {e:.2f} and push = {push:.2f}. Upwards the energy's slope is "
                "e - push, downwards the relu is silent and it is -e. Both must be uphill."
            )
    return "Held between two slopes, neither of them small."
