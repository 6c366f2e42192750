"""The exercises of the chapter *queries_and_forgetting*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def answer(complete) -> str:
    """A vector completed by the conditional mean of a Gaussian."""
    rng = np.random.default_rng(0)
    factor, mean, x = rng.normal(size=(5, 5)), rng.normal(size=5), rng.normal(size=5)
    C = factor @ factor.T + np.eye(5)
    known = np.array([True, False, True, True, False])
    best = x.copy()
    gain = C[np.ix_(~known, known)] @ np.linalg.inv(C[np.ix_(known, known)])
    best[~known] = mean[~known] + gain @ (x[known] - mean[known])
    found = np.asarray(complete(C, mean, x.copy(), known), float)
    if found.shape == best.shape and not np.allclose(found[known], x[known]):
        raise NotYet("What is known stays as it is.")
    if np.allclose(found[~known], gain @ x[known]):
        raise NotYet("Take the mean away first, and add it again in the end.")
    expect(
        found,
        best,
        "The missing entries are the mean plus C_mk C_kk^-1 (x_k - mean_k); or, with P the inverse "
        "of C, those for which P_mm (x_m - mean_m) + P_mk (x_k - mean_k) = 0.",
    )
    return "Setting the missing units' own errors to zero is the whole of Gaussian recall."


def transfer(answer) -> str:
    """Average accuracy at the end and backward transfer."""
    R = np.array([[0.9, 0.4, 0.5], [0.7, 0.95, 0.3], [0.5, 0.8, 1.0]])
    acc, bwt = np.asarray(answer(R), float)
    expect(acc, R[-1].mean(), "ACC is the mean of the last row: all tasks, after the last stage.")
    if np.isclose(bwt, -(-0.4 - 0.15) / 2):
        raise NotYet("The sign: what was lost is negative.")
    expect(
        bwt,
        (-0.4 - 0.15) / 2,
        "BWT compares the last row with the diagonal, over all tasks but the last, which had no "
        "time to be forgotten.",
    )
    return "A network that learns nothing has a BWT of zero, so always read both."


def untouched(answer) -> str:
    """Share of a context's neurons that none of four later contexts uses, 40 of 200 each."""
    if np.isclose(answer, 1 - 4 * 40 / 200):
        raise NotYet("Later contexts overlap among themselves too: their shares do not add up.")
    expect(
        answer,
        0.8**4,
        "One later context leaves a given neuron alone with probability 1 - 40/200. All four must.",
        rtol=0.005,
    )
    return "Independent gates fill up slowly; gates that avoid one another would fill up at five."


def goal(answer) -> str:
    """Goals of Q-learning with a discount of 0.98."""
    rng = np.random.default_rng(1)
    reward, values = rng.normal(size=6), rng.normal(size=(6, 2))
    fell = np.array([False, True, False, False, True, False])
    found = np.asarray(answer(reward, fell, values), float)
    if found.shape == reward.shape and np.allclose(found, reward + 0.98 * values.max(1)):
        raise NotYet("After a fall nothing follows.")
    expect(
        found,
        [r if f else r + 0.98 * max(v) for r, f, v in zip(reward, fell, values)],
        "For each sample: its reward, plus 0.98 times the largest value of its next moment, unless "
        "it fell.",
    )
    return "A guess, learned from a guess: that this settles at all is the wonder of it."
