"""The criteria of the chapter's claims. Arrays have one number for each network."""

import numpy as np

from pcbook.store.claims import Measurement, criterion

CANNOT_PREDICT = ("unconnected", "untrained", "random")


@criterion("ec-error-units")
def has_twice_as_many_error_units(m: Measurement) -> bool:
    """Whether training doubles the count of the unconnected network with the same seed."""
    return bool((m["trained"] >= 2 * m["unconnected"]).all())


@criterion("ec-same-image")
def tells_those_that_predict(m: Measurement) -> bool:
    """Whether the effect is above .8 in trained networks and below .2 in those that cannot."""
    none = all((np.abs(m[name]) < 0.2).all() for name in CANNOT_PREDICT)
    return bool((m["trained"] > 0.8).all() and none)


@criterion("ec-silent-units")
def are_rare_in_random_order(m: Measurement) -> bool:
    """Whether random order makes less than a third of the trained networks' units, in the mean."""
    return bool(np.mean(m["random"]) < np.mean(m["trained"]) / 3)


@criterion("ec-two-timescales")
def saves_nothing_without_units(m: Measurement) -> bool:
    """Whether less than 25% of the saving at the second image remains, in every network."""
    return bool((m["left"] < 25).all())


@criterion("ec-early-stop")
def stops_before_half(m: Measurement) -> bool:
    """Whether the stop leaves less than half of the slow saving of the full training."""
    return bool(np.mean(m["stopped"]) < np.mean(m["full"]) / 2)


@criterion("ec-architectures")
def predict_alike(m: Measurement) -> bool:
    """Whether the least `surprise` is above 10% and the least share `decoded` above 50%."""
    return bool(m["surprise"] > 10 and m["decoded"] > 50)
