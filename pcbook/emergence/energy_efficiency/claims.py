"""The criteria of the chapter's claims. Arrays have one number for each network."""

import numpy as np

from pcbook.store.claims import Measurement, criterion


@criterion("ee-below-median")
def is_below_median(m: Measurement) -> bool:
    """Whether `preactivation`, (steps, networks), is below `median` from the second step on."""
    return bool((m["preactivation"][1:] < m["median"]).all())


@criterion("ee-falls-on")
def falls_on(m: Measurement) -> bool:
    """Whether `preactivation` is lower at the tenth than at the second step by more than .01."""
    return bool((m["preactivation"][1] - m["preactivation"][9] > 0.01).all())


@criterion("ee-gap")
def closes_most_of_the_gap(m: Measurement) -> bool:
    """Whether every network closes more than 50% and less than 100%, at both sizes of images."""
    return all(((share > 50) & (share < 100)).all() for share in (m["small"], m["full"]))


@criterion("ee-drive")
def resembles_the_coming_digit(m: Measurement) -> bool:
    """Whether r is above .9 with the digit that comes, and below .7 in the mean of the others."""
    return bool((m["own"] > 0.9).all() and (m["others"] < 0.7).all())


@criterion("ee-decoded")
def announces_the_coming_digit(m: Measurement) -> bool:
    """Whether more than 50% are announced by every network, and less than 20% untrained."""
    return bool((m["decoded"] > 50).all() and m["untrained"] < 20)


@criterion("ee-units-at-the-edge")
def are_at_the_edge(m: Measurement) -> bool:
    """Whether the median prediction unit's mean input is below a quarter of the median pixel's."""
    return bool((m["quiet"] < m["typical"] / 4).all())


@criterion("ee-lesion")
def saves_no_more_when_lesioned(m: Measurement) -> bool:
    """Whether the fall from the second to the tenth step is below a tenth of the intact one."""
    return bool((m["lesioned"] < 0.1 * m["intact"]).all())


@criterion("ee-control-lesion")
def changes_nothing(m: Measurement) -> bool:
    """Whether what the tenth image costs changes by less than .5% in every network."""
    return bool((np.abs(m["more"]) < 0.5).all())


@criterion("ee-mismatch")
def is_surprised(m: Measurement) -> bool:
    """Whether the wrong context costs more than 20% more, and less than 5% when untrained."""
    return bool((m["more"] > 20).all() and (np.abs(m["untrained"]) < 5).all())


@criterion("ee-sudden")
def grows_within_a_quarter(m: Measurement) -> bool:
    """Whether the fall grows from 10% to 90% within a quarter of the training."""
    return bool(m["done"] - m["begun"] < m["epochs"] / 4)


@criterion("ee-curve")
def ends_at_the_published_share(m: Measurement) -> bool:
    """Whether every network's tenth image costs .81 of the first, within .05."""
    return bool((np.abs(m["ratio"] - 0.81) < 0.05).all())


@criterion("ee-thirty-units")
def has_as_many_units_as_published(m: Measurement) -> bool:
    """Whether every network has 25 to 30 prediction units."""
    return bool(((m["units"] >= 25) & (m["units"] <= 30)).all())


@criterion("ee-post")
def is_silenced(m: Measurement) -> bool:
    """Whether less than a third of the firing costs more than 3 times the preactivation."""
    return bool((m["ratio"] > 3).all() and (m["fires"] < 1 / 3).all())
