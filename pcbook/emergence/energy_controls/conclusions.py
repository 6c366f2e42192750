"""The four conclusions of the experiment as numbers, and a table of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pcbook.core.arguments import checked
from pcbook.emergence.energy_efficiency import Measures


class Conclusions(NamedTuple):
    """The experiment's four conclusions, a number a network.

    `fast` is the share of the preactivation, in %, that is gone at the second image; `slow`
    what goes from the second to the last; `slow_lesioned` the same without the prediction
    units (negative: it rises); `lesion` how much more the last image costs without them;
    `surprise` how much more it costs in the wrong context; `decoded` the share, in %, of
    last classes that the drive announces; `units` the number of prediction units above zero.
    """

    fast: Float[np.ndarray, " networks"]
    slow: Float[np.ndarray, " networks"]
    slow_lesioned: Float[np.ndarray, " networks"]
    lesion: Float[np.ndarray, " networks"]
    surprise: Float[np.ndarray, " networks"]
    decoded: Float[np.ndarray, " networks"]
    units: Float[np.ndarray, " networks"]


@checked
def conclude(found: Measures) -> Conclusions:
    """The conclusions for the networks along the leading axis of `found`."""
    a, lesioned = np.asarray(found.preactivation), np.asarray(found.lesioned)
    return Conclusions(
        fast=_percent(a[:, 0] - a[:, 1], a[:, 0]),
        slow=_percent(a[:, 1] - a[:, -1], a[:, 1]),
        slow_lesioned=_percent(lesioned[:, 1] - lesioned[:, -1], lesioned[:, 1]),
        lesion=_percent(lesioned[:, -1] - a[:, -1], a[:, -1]),
        surprise=_percent(found.unexpected - found.expected, found.expected),
        decoded=100 * np.asarray(found.decoded)[:, -1],
        units=(np.asarray(found.units) > 0).any(1).sum(1).astype(float),
    )


def _percent(part, whole):
    return 100 * np.asarray(part) / np.asarray(whole)


@checked
def table(rows: dict[str, Conclusions]) -> str:
    """The conclusions, mean ± sd over networks, with a line for each variant."""
    width = max(map(len, rows))
    heads = zip(*([*name.split("_"), ""][:2] for name in Conclusions._fields))
    lines = [f"{'':{width}}{''.join(f'{word:>10}' for word in words)}".rstrip() for words in heads]
    for name, found in rows.items():
        lines.append(f"{name:{width}}{''.join(f'{_spread(v):>10}' for v in found)}")
    return "\n".join(lines)


def _spread(values):
    """Mean ± standard deviation (ddof = 1); of a single network, its value."""
    deviation = f" ± {round(values.std(ddof=1))}" if len(values) > 1 else ""
    return f"{round(values.mean())}{deviation}"
