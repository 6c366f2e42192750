"""The exercises of the chapter *thermodynamics*."""

import numpy as np

from pcbook.exercises import NotYet, expect

K, JOULES_OF_A_MULTIPLY_ADD = 1.380649e-23, 4.6e-12


def bits(answer) -> str:
    """Bits that could be erased at a temperature for the price of one multiply-add."""
    if np.isclose(answer(300.0), JOULES_OF_A_MULTIPLY_ADD / (K * 300), rtol=1e-3):
        raise NotYet("That counts in kT. A bit costs kT ln 2.")
    for temperature in (300.0, 77.0, 4.2):
        expect(
            answer(temperature),
            JOULES_OF_A_MULTIPLY_ADD / (K * temperature * np.log(2)),
            "Add and multiply cost 0.9 and 3.7 picojoules, a bit costs k T ln 2. The colder, the "
            "more bits.",
            rtol=1e-3,
        )
    return "A thousand million bits, for one operation on two numbers of 32."


def sudden(answer) -> str:
    """Mean work of stiffening a trap from k to k' at once, in kT."""
    rng = np.random.default_rng(0)
    for start, end in ((1.0, 4.0), (2.0, 3.0), (4.0, 1.0)):
        x = rng.choice([-1, 1], 1000) / np.sqrt(start)  # any x of variance 1 / start will do
        energy = (end - start) * (x**2).mean() / 2
        if np.isclose(answer(start, end), np.log(end / start) / 2):
            raise NotYet("That is the change of free energy: the work of an infinitely slow hand.")
        expect(
            answer(start, end),
            energy,
            "The particle has no time to move: the work is the change of k x^2 / 2 where it "
            "stands, and the mean of x^2 in the first trap is 1 / k, in units of kT.",
        )
    return "A sudden hand pays for where the particle is, not for where it would like to be."


def estimate(answer) -> str:
    """Jarzynski's estimate of the free energy from an array of works, in kT."""
    expect(answer(np.full(5, 1.5)), 1.5, "Every work is 1.5 here, so that is dF, too.")
    works = np.array([0.0, np.log(2), np.log(4)])
    if np.isclose(answer(works), works.mean()):
        raise NotYet("That is the mean work. Average exp(-W) first, and take the logarithm last.")
    expect(answer(works), -np.log((1 + 1 / 2 + 1 / 4) / 3), "<exp(-W)> = exp(-dF), so dF = ...")
    return "The smallest works count most, and they are the rarest."


def batch(answer) -> str:
    """How many images share a fetched weight when fetching costs as much as the products."""
    if np.isclose(answer, 640 / 4.6 * 2, rtol=0.02) or np.isclose(answer, 640 / 2.3, rtol=0.02):
        raise NotYet("A weight and an image make one multiplication and one addition.")
    if np.isclose(answer, 160 / 4.6, rtol=0.02):
        raise NotYet("160 pJ is the price of a byte. A weight has four.")
    expect(
        answer,
        640 / 4.6,
        "Of one weight: its fetch costs 4 bytes from DRAM, and each image one multiply-add.",
        rtol=0.02,
    )
    return "Below that, a machine that fetches its weights spends most of its energy on the way."


def break_even(answer) -> str:
    """After how many uses teaching a device is cheaper than moving the weights at each use."""
    rng = np.random.default_rng(1)
    for teach, local in rng.uniform(1, 10, (5, 2)):
        copy, remote = teach / 4, local * 3
        uses = np.linspace(0, 20, 200_001)
        dearer = copy + uses * remote < teach + uses * local
        expect(
            answer(copy, remote, teach, local),
            uses[dearer.sum()],
            "Immortal: copy + uses * remote. Mortal: teach + uses * local. Where do they meet?",
            rtol=1e-3,
            atol=1e-3,
        )
    return "What is used once should be copied, and what is used for life should be taught."
