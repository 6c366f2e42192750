"""The criteria of the chapter's claims, and how two of them are measured."""

import numpy as np
from jaxtyping import Array, Float

from pcbook.store.claims import Measurement, criterion


@criterion("graph-fixed-prediction")
def rests_at_backprop(m: Measurement) -> bool:
    """Whether the updates are within 1e-10 of backprop's, and on the patient chain within 1e-5."""
    return bool(np.max(m["graphs"]) < 1e-10 and m["chain"] < 1e-5)


@criterion("graph-hundredfold")
def costs_a_hundredfold(m: Measurement) -> bool:
    """Whether the products are 50 to 200 times those of backprop."""
    return bool(50 < m["ratio"] < 200)


@criterion("graph-z-il")
def passes_backprop_on(m: Measurement) -> bool:
    """Whether the updates at rate 1 are backprop's, and at rate 0.5 those scaled by 0.5^k."""
    scaled = m["scaled"] < 1e-10 and m["cosine"] > 1 - 1e-10
    return bool(np.max(m["graphs"]) < 1e-10 and scaled)


@criterion("graph-lower-bound")
def costs_no_less(m: Measurement) -> bool:
    """Whether the cheapest variant takes at least 0.999 times backprop's operations."""
    return bool(m["least"] > 0.999)


@criterion("graph-strict-is-not-backprop")
def differs_from_backprop(m: Measurement) -> bool:
    """Whether the mean cosine with backprop's update is below 0.9 in some layer."""
    return bool(np.mean(m["cosine"], axis=1).min() < 0.9)


def cosines(
    ours: list[Float[Array, "networks _"]], theirs: list[Float[Array, "networks _"]]
) -> Float[np.ndarray, "layers networks"]:
    """The cosine between two updates in each layer, for each of many networks."""

    def unit(update):
        return update / np.linalg.norm(update, axis=1, keepdims=True)

    return np.stack([(unit(a) * unit(b)).sum(1) for a, b in zip(ours, theirs)])


@criterion("graph-infinitesimal")
def falls_with_the_scale(m: Measurement) -> bool:
    """Whether the error falls as a power of the scale with an exponent from 0.9 to 1.1."""
    return bool(0.9 < m["slope"] < 1.1)


def measure_limit(
    scales: tuple[float, ...], errors: Float[np.ndarray, "scales networks"]
) -> Measurement:
    """Median errors at the scales 0.1 and 0.001, and the exponent with which they fall between."""
    medians = dict(zip(scales, np.median(errors, axis=1)))
    fitted = [scale for scale in scales if 0.001 <= scale <= 0.1]
    slope = np.polyfit(np.log(fitted), np.log([medians[scale] for scale in fitted]), 1)[0]
    return {"at_tenth": medians[0.1], "at_thousandth": medians[0.001], "slope": slope}


@criterion("graph-trains-as-well")
def trains_as_well(m: Measurement) -> bool:
    """Whether the mean accuracy is less than a point from backprop's on every network."""
    gaps = np.mean(m["accuracy"], axis=1) - np.mean(m["backprop"], axis=1)
    return bool(np.abs(gaps).max() < 1)
