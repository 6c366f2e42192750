"""The published test for error units, and the sound one: change the context, not the image."""

from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax import lax, nn
from jaxtyping import Array, Bool, Float, Int

from pcbook.core.arguments import Index, NotNegative, checked, finite
from pcbook.core.checks import check_number
from pcbook.emergence.energy_efficiency import (
    RECURRENT,
    Network,
    Numbers,
    Probe,
    elsewhere,
    in_wrong_context,
    preactivations,
    run,
)


@checked
def swapped(test: Probe, step: Index) -> Int[Array, "steps n"]:
    """The rows of `test` with the image at `step` (from 0) exchanged for one of another class."""
    steps = len(test.rows)
    check_number(f"less than {steps}, the number of steps", steps.__gt__, step=step)
    return test.rows.at[step].set(test.rows[step, elsewhere(test.classes[step])])


@checked
def error_units(
    W: Annotated[Float[Numbers, "units units"], finite],
    test: Probe,
    step: Index = 8,
    threshold: NotNegative = 2.576,
) -> Bool[Array, "classes units"]:
    """Which units "signal errors" by the published test, which is confounded.

    Unit i does so for class c if it fires more at `step` (from 0) when the image is of another
    class than when it is of class c, by a two-sample z of at least `threshold`. But other
    classes are other images: pixels alone pass.
    """
    usual, odd = (
        nn.relu(preactivations(W, test.images[rows])[step])
        for rows in (test.rows, swapped(test, step))
    )

    def units_of(c):
        mine = (test.classes[step] == c)[:, None]
        n = mine.sum()
        mean = [jnp.where(mine, h, 0).sum(0) / n for h in (usual, odd)]
        variance = [
            jnp.where(mine, (h - m) ** 2, 0).sum(0) / (n - 1) for h, m in zip((usual, odd), mean)
        ]
        spread = jnp.sqrt((variance[0] + variance[1]) / n)
        return (mean[1] - mean[0]) >= threshold * jnp.where(spread > 0, spread, jnp.inf)

    return lax.map(units_of, jnp.arange(len(test.medians)))


class Surprise(NamedTuple):
    """The same images in the wrong and in the right context.

    `percent` more preactivation in the wrong one; `effect` the mean difference of an image
    over its standard deviation (Cohen's d of pairs): below .2 negligible, from .8 large.
    """

    percent: Float[Array, ""]
    effect: Float[Array, ""]


@checked
def surprise(params, test: Probe, network: Network = RECURRENT) -> Surprise:
    """What it costs that an image comes where another class was due."""
    wrong = test.images[in_wrong_context(test.rows, test.classes[-1])]
    right, wrong = (jnp.abs(run(network, params, x)[-1]).mean(1) for x in (test.x, wrong))
    extra = wrong - right
    spread = extra.std()
    effect = jnp.where(spread > 0, extra.mean() / jnp.where(spread > 0, spread, 1), 0)
    return Surprise(100 * extra.mean() / right.mean(), effect)
