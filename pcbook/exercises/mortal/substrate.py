"""The exercises of the chapter *substrate*."""

import numpy as np

from pcbook.exercises import NotYet, expect


def transplant(answer) -> str:
    """What to write to a new chip, if the gains of both are known."""
    rng = np.random.default_rng(0)
    W, home, away = rng.normal(size=(3, 4)), *np.exp(rng.normal(size=(2, 3, 4)))
    expect(
        np.asarray(answer(W, home, away)) * away,
        W * home,
        "The new chip makes gain x weight of what is written to it, as the old one did. The two "
        "products should agree.",
    )
    return "So a body can be copied, by whoever can measure every synapse of both. Nobody does."


def growth(answer) -> str:
    """How steeply the energy would fall with each absent synapse."""
    rng = np.random.default_rng(1)
    x, r, W = rng.normal(size=(6, 3)), rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    there = rng.random((3, 4)) < 0.5
    W = W * there

    def energy(W):
        return ((x - r @ W.T) ** 2).sum(1).mean() / 2

    steep = np.zeros((3, 4))
    for i, j in np.argwhere(~there):
        h = np.zeros((3, 4))
        h[i, j] = 1e-5
        steep[i, j] = abs(energy(W + h) - energy(W - h)) / 2e-5
    found = np.asarray(answer(x - r @ W.T, r, there), float)
    if found.shape == steep.shape and np.allclose(found[~there], steep[~there], rtol=1e-3):
        expect(found[there], 0 * found[there], "Right where there is none: make the others zero.")
    expect(
        found,
        steep,
        "Not the slope of the mean energy. It is the mean over the batch of e_i r_j, for every "
        "pair i, j with no synapse; steep is steep in either direction.",
        rtol=1e-3,
    )
    return "Every pair of neurons knows how much it is missing a synapse."


def removal(answer) -> str:
    """By how much the energy rises when a synapse is taken away."""
    rng = np.random.default_rng(2)
    for w in (0.5, -1.5):
        x, r = rng.normal(size=(2, 20))
        e = x - w * r
        rise = (x**2).mean() / 2 - (e**2).mean() / 2
        if np.isclose(answer(w, e, r), w * (e * r).mean()):
            raise NotYet("That is the slope times the way. The energy is curved as well.")
        expect(
            answer(w, e, r),
            rise,
            "Without the synapse the error is e + w r. Take the mean of its square over the "
            "batch, less that of e, and halve.",
        )
    return "Exact, and local: what a synapse is worth, its two ends can work out."


def current(answer) -> str:
    """The current in nA at which the chapter's neuron fires at a rate in Hz."""
    for rate in (20.0, 50.0, 120.0):
        drive = 10.0 * float(answer(rate))
        if not drive > 15:
            raise NotYet(
                f"For {rate:g} Hz you give {drive / 10:.2f} nA. Below 1.5 nA the voltage never "
                "reaches the threshold: does your interval come in ms?"
            )
        expect(
            1000 / (2 + 20 * np.log(drive / (drive - 15))),
            rate,
            "At that current it does not fire at that rate. Solve 1000 / rate = 2 + 20 ln(RI / "
            "(RI - 15)) for I: take the refractory time off the interval first.",
            rtol=1e-3,
        )
    return "The interval that is left is a charging curve, read backwards."


def bill(answer) -> str:
    """Spikes a neuron and step at which spiking costs what dense inference does, far and near."""
    add, multiply, read, batch = 0.9, 3.7, 640.0, 64
    far, near = np.asarray(answer, float)
    if np.isclose(far, (add + multiply + read) / (add + read), rtol=0.02):
        raise NotYet("The dense step reads a weight once for all 64 samples.")
    if np.isclose(far, near):
        raise NotYet("Far and near differ: only the far weights have to be fetched.")
    expect(far, (add + multiply + read / batch) / (add + read), "Far: dense over spike.", rtol=0.02)
    expect(near, (add + multiply) / add, "Near: nothing is fetched in either case.", rtol=0.02)
    return (
        "Where weights are far away, a spike must be rare; where they are at hand, it may be loud."
    )
