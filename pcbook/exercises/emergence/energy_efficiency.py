"""The exercises of the chapter *energy_efficiency*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def guess(answer) -> str:
    """The constant that makes the mean of |x + drive| smallest, for ten values of a pixel."""
    x = np.array([0] * 6 + [0.8, 0.9, 1.0, 1.0])
    if np.isclose(answer, -x.mean()):
        raise NotYet("That is minus the mean: it is best for squares, not for absolute values.")
    drives = np.linspace(-1.5, 1.5, 3001)
    best = drives[np.abs(x[:, None] + drives).mean(0).argmin()]
    expect(
        answer, best, "Try a few: np.abs(x + drive).mean(). Most of the values are 0.", atol=1e-3
    )
    return "Minus the median. A pixel that is dark more often than not is best left alone."


def decode(answer) -> str:
    """Which median image the negative of a drive resembles most, by correlation."""
    rng = np.random.default_rng(0)
    medians = rng.uniform(size=(10, 30))
    drive = -medians[[3, 1, 4]] + 0.3 * rng.normal(size=(3, 30))
    named = np.asarray(answer(drive, medians))
    expect(named, [3, 1, 4], "The drive is minus what is expected: mind the sign.")
    scaled = 5 + np.array([[0.1], [1], [20]]) * drive
    expect(
        answer(scaled, medians * np.linspace(0.2, 3, 10)[:, None]),
        [3, 1, 4],
        "An offset or a scale changes your answer: take away the mean of each row and divide it "
        "by its length first.",
    )
    return "Nothing was trained to read it: the drive is written in the language of images."


def left_over(answer) -> str:
    """Preactivation, firing rate and cost of an image against an expectation."""
    a, h, cost = answer
    expect(a, [1, 0, -1, 0], "The preactivation is the image plus the drive.")
    expect(h, [1, 0, 0, 0], "A unit fires with relu of its preactivation: never below zero.")
    expect(cost, 0.5, "The cost is the mean of |a|: what did not come costs too.")
    return (
        "Ink that was not expected makes a unit fire; ink that was expected and did not come "
        "costs as much, and no one hears of it."
    )


def flops(answer) -> str:
    """Floating-point operations of the 26 products of a training step."""
    one = 2 * 32 * 784 * 784
    for products, hint in (
        (27, "One product too many: nothing asks for the blame of the first image."),
        (30, "h_0 is zero, and nothing asks for the blame of the first image."),
        (9, "That is the forward pass. Blame and weights have their products too."),
        (13, "A multiply-add is two operations."),
    ):
        if np.isclose(answer, products * one):
            raise NotYet(hint)
    expect(
        answer,
        26 * one,
        "Count the products of a (32, 784) with a (784, 784) matrix: for a_2 to a_10, for "
        "delta_9 to delta_2, and for the weights.",
    )
    return "About a billion; 169 such steps make an epoch."
