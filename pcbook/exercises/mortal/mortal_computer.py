"""The exercises of the chapter *mortal_computer*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def shared(answer) -> str:
    """Information between two Gaussian variables, given all the others."""
    rng = np.random.default_rng(0)
    for n in (3, 4, 6):
        factor = rng.normal(size=(n, n))
        C = factor @ factor.T + 0.5 * np.eye(n)

        def entropy(*kept, C=C):
            return np.linalg.slogdet(C[np.ix_(kept, kept)])[1] / 2

        rest = tuple(range(2, n))
        target = entropy(0, *rest) + entropy(1, *rest) - entropy(*rest) - entropy(0, 1, *rest)
        blind = entropy(0) + entropy(1) - entropy(0, 1)
        if np.isclose(answer(C.copy()), blind):
            raise NotYet("That is what they share when nothing else is known.")
        if np.isclose(answer(C.copy()), target / np.log(2)):
            raise NotYet("Those are bits: take the natural logarithm.")
        expect(
            answer(C.copy()),
            target,
            "What is left of both after regression on the others has the covariance "
            "C_aa - C_ab C_bb^-1 C_ba. Its correlation is rho, and the answer -ln(1 - rho^2) / 2.",
        )
    return "Two numbers can be strangers and seem close, or be close and seem strangers."


def slope(answer) -> str:
    """The slope of the free energy along the size of each synapse."""
    rng = np.random.default_rng(1)
    x, c, h = 0.7, 0.05, 1e-5
    w, hands, m = rng.normal(size=(4, 2)), rng.normal(size=(4, 2)), rng.uniform(size=4)

    def F(m):
        return (x - (m * (w * hands).sum(1)).sum()) ** 2 / 2 + c * m.sum()

    uphill = np.array([(F(m + step) - F(m - step)) / (2 * h) for step in h * np.eye(4)])
    found = np.asarray(answer(x, w, m, hands, c), float)
    if found.shape == uphill.shape and np.allclose(found, -uphill, rtol=1e-3):
        raise NotYet("The sign: selection goes down this slope.")
    if found.shape == uphill.shape and np.allclose(found, uphill - c, rtol=1e-3):
        raise NotYet("A synapse has a price as well.")
    expect(
        found,
        uphill,
        "The error x - mu, times what each clock says, w_k . hands_k, with a minus; and the price.",
        rtol=1e-3,
    )
    return "It is not zero where m is: what is absent can be missed."


def settings(answer) -> str:
    """Settings of a heater that leaves 2 of 6 bits."""
    if np.isclose(answer, 4):
        raise NotYet("4 settings are 2 bits: they take 2 away. How many must they take?")
    expect(answer, 64 / 2**2, "The heater must take 6 - 2 bits away: log2 k must be at least that.")
    return "Only variety destroys variety."


def share(answer) -> str:
    """Share of births where the food covers the cost, by counting a fine grid."""
    places = (np.arange(1000) + 0.5) / 1000 - 0.5
    food = 3 * np.exp(-(places[:, None] ** 2 + places**2) / (2 * 0.2**2))
    if np.isclose(answer, np.sqrt(0.08 * np.log(3)), rtol=0.01):
        raise NotYet("That is the radius of the circle: how much of the square does it cover?")
    expect(
        answer,
        (food >= 1).mean(),
        "The food falls to 1 where r^2 = 2 x 0.2^2 x ln 3. What share of the square is the circle?",
        rtol=0.01,
    )
    return "For those who cannot move, life is real estate."


def aligned(answer) -> str:
    """Counts of matching, disjoint and excess genes of two genomes."""
    pairs = [
        ([1, 2, 3, 4, 5, 8], [1, 2, 3, 4, 5, 6, 7, 9, 10], (5, 3, 2)),
        ([0, 1, 2], [0, 1, 2], (3, 0, 0)),
        ([0, 1, 2, 7, 9], [0, 3], (1, 3, 2)),
    ]
    for a, b, target in pairs:
        for first, second in ((a, b), (b, a)):
            found = tuple(answer(list(first), list(second)))
            if found[0] == target[0] and found[1:] == target[:0:-1] and target[1] != target[2]:
                raise NotYet("Excess genes lie beyond the other parent's last number.")
            expect(
                found,
                target,
                "Match by number. A gene that one parent lacks is in excess if its number is above "
                "the largest of that parent, and disjoint otherwise.",
            )
    return "History does the aligning: no need to compare what the genes do."
