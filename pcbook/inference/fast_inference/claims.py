"""The criteria of the chapter's claims."""

import numpy as np

from pcbook.store.claims import Measurement, criterion


@criterion("fast-signal-decay")
def arrives_in_errors_alone(m: Measurement) -> bool:
    """Whether |e_1| / |e_20| is below 1e-4 in activities, and within 0.01 of 1 in errors.

    And at the equilibrium, `rest`, where it must be 1 for the comparison to be one.
    """
    return bool(m["activities"] < 1e-4 and max(abs(m["rest"] - 1), abs(m["errors"] - 1)) < 0.01)


@criterion("fast-hundredfold")
def costs_fifty_backprops(m: Measurement) -> bool:
    """Whether the equilibrium costs 50 backprops or more in the mean, with tanh and with relu."""
    return bool(min(np.mean(m["tanh"]), np.mean(m["relu"])) >= 50)


@criterion("fast-mupc-width")
def becomes_backprop(m: Measurement) -> bool:
    """Whether the mean of `cosine`, (widths, seeds), rises with each width to above 0.99."""
    means = np.mean(m["cosine"], axis=1)
    return bool((np.diff(means) > 0).all() and means[-1] > 0.99)
