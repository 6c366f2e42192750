"""The exercises of the chapter *energy_controls*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def significant(answer) -> str:
    """How many paired differences make an effect size of .02 reach z = 2.576."""
    if np.isclose(answer, 2.576 / 0.02, rtol=0.02):
        raise NotYet("z grows with the square root of the number of images: square it.")
    expect(answer, (2.576 / 0.02) ** 2, "Solve .02 * sqrt(n) = 2.576 for n.", rtol=1e-3)
    return "So significance says how many images there were. The effect size says what they show."


def effect(answer) -> str:
    """Mean over standard deviation of the extra preactivation in the wrong context."""
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(size=(2, 50, 8)) * np.array([1, 1.4])[:, None, None]
    extra = [sum(abs(w)) / 8 - sum(abs(r)) / 8 for r, w in zip(right, wrong)]
    mean = sum(extra) / 50
    spread = (sum((e - mean) ** 2 for e in extra) / 50) ** 0.5
    given = answer(right, wrong)
    if np.isclose(given, -mean / spread, rtol=0.02):
        raise NotYet("The sign: wrong minus right, so that a surprise is positive.")
    if np.isclose(given, mean / spread * 50**0.5, rtol=0.02):
        raise NotYet("That is z, which grows with the number of images. Leave out the root of n.")
    expect(
        given,
        mean / spread,
        "One number for each image: the mean over units of |a|, wrong minus right. Then the mean "
        "of these over their standard deviation.",
        rtol=0.02,
    )
    return "Each image is its own control: pixels cannot pass this test."


def deal(answer) -> str:
    """The next image of a class and the pointer's new place, none lost."""
    shuffled = np.random.default_rng(0).permutation(6)
    dealt, pointer = [], 0
    for _ in shuffled:
        image, pointer = answer(shuffled, pointer)
        dealt.append(image)
    if dealt[0] != shuffled[0]:
        raise NotYet("The first image of the class is never shown: read before you move on.")
    expect(dealt, shuffled, "Every image should come once, in the shuffled order.")
    return "Read, then move on. Ten images, one a class, are no longer lost each epoch."


def patience(answer) -> str:
    """Where the loss was lowest when the patience ran out."""
    rng = np.random.default_rng(0)
    for length, allowed in ((40, 3), (40, 8), (5, 9)):
        losses = np.linspace(1, 0.5, length) + 0.1 * rng.normal(size=length)
        lowest, place, waited = np.inf, 0, 0
        for now, loss in enumerate(losses):
            waited = 0 if loss < lowest else waited + 1
            if loss < lowest:
                lowest, place = loss, now
            if waited == allowed:
                break
        given = answer(losses, allowed)
        if given == now != place:
            raise NotYet("That is where it stops. Which weights would you keep?")
        if given == losses.argmin() != place:
            raise NotYet("That is the lowest of all: training had stopped before it was seen.")
        expect(
            given,
            place,
            "Keep the place of the lowest loss so far; stop when it is `patience` places back.",
        )
    return "What is kept is the best seen, not the last."
