"""The energy as an optimisation problem: its errors, gradients and curvature.

Activation functions with a kink at zero need care: the minimum of the energy often has units
at x = 0 exactly, where phi has two slopes. `Branch` says which of them holds for each unit.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from pcbook.core import network
from pcbook.core.network import (
    ACTIVATIONS,
    LOSSES,
    Activities,
    Named,
    Params,
    find_activation,
    find_loss,
    firing,
    predict,
)
from pcbook.foundations import predictive_coding as pc
from pcbook.inference.fast_inference.vectors import dot

KINKED = (ACTIVATIONS["relu"], ACTIVATIONS["leaky relu"])  # one slope below zero, another above


class Branch(NamedTuple):
    """The linear branch of phi that each unit of a layer is on.

    `side` of zero: -1 or 1, and 0 for a unit held at the kink. `slope` is that of phi there.
    """

    side: Float[Array, "batch _"]
    slope: Float[Array, "batch _"]

    @property
    def held(self) -> Bool[Array, "batch _"]:
        """Whether a unit is at a kink and neither side lowers the energy."""
        return self.side == 0


class Problem(NamedTuple):
    """Minimise the energy of a network, input and target `y` clamped.

    The methods take activities `xs` = x_0..x_{L-1} and errors `es` = e_1..e_L, weighted by their
    precisions; what is added to predictions are the errors without these weights.
    """

    params: Params
    y: Array
    activation: Named
    loss: Named
    precision: Any

    @property
    def phi(self):
        """The activation."""
        return find_activation(self.activation)

    @property
    def squared(self) -> bool:
        """Whether the loss is the squared error."""
        return find_loss(self.loss) is LOSSES["squared error"]

    @property
    def precisions(self) -> list:
        """The precision of each layer 1..L; None, which is 1, for hidden layers that have none."""
        return pc.layer_precisions(self.params, self.precision)

    def errors(self, xs: Activities) -> Activities:
        """The prediction errors e_1..e_L."""
        return pc.errors(self.params, xs, self.y, self.activation, self.loss, self.precision)

    def unweighted(self, es: Activities) -> Activities:
        """The hidden errors x_l - mu_l of the weighted ones."""
        return [e if pi is None else e / pi for e, pi in zip(es[:-1], self.precisions)]

    def energy(self, xs: Activities, es: Activities) -> Float[Array, " batch"]:
        """F of each sample: with one precision and the squared error, from its errors alone."""
        if (
            not self.squared
            or isinstance(self.precision, (list, tuple))
            or jnp.ndim(self.precision)
        ):
            return pc.energy(self.params, xs, self.y, self.activation, self.loss, self.precision)
        return (dot(es[:-1], es[:-1]) + (es[-1] ** 2).sum(-1) / self.precision) / 2

    def velocities(self, xs: Activities, es: Activities) -> Activities:
        """-dF/dx_l for l = 1..L-1; zero for a unit held at a kink."""
        vs = []
        for layer, x, e, above in zip(self.params[1:], xs[1:], es, es[1:]):
            push = above @ layer.W
            branch = self.choose_branch(x, e, push)
            vs.append(jnp.where(branch.held, 0, push * branch.slope - e))
        return vs

    def choose_branch(self, x: Array, e: Array, push: Array) -> Branch:
        """The branch of phi at `x`, for units with error `e` and `push` = e_{l+1} W_{l+1}.

        At x = 0 of a kinked phi the energy has two one-sided slopes. A unit moves to the side
        on which the energy falls, and takes phi's slope there; if it rises on both, it is held.
        """
        slope = self.phi.slope
        if self.phi not in KINKED:
            return Branch(jnp.ones_like(x), slope(x))
        tiny = jnp.finfo(x.dtype).tiny
        above, below = slope(x + tiny), slope(x - tiny)
        up, down = push * above - e > 0, push * below - e < 0
        to = jnp.where(up, 1, jnp.where(down, -1, 0)).astype(x.dtype)
        return Branch(jnp.where(x == 0, to, jnp.sign(x)), jnp.where(up, above, below))

    def stop_at_kink(self, side: Array, new: Array) -> Array:
        """The new activities of a layer; a unit that would change sides stops at zero."""
        return jnp.where(side * new > 0, new, 0) if self.phi in KINKED else new

    def up(
        self, xs: Activities, zs: Activities, branches: list[Branch]
    ) -> tuple[Activities, Activities]:
        """One pass up: the activities whose unweighted errors are `zs`, and all errors e_1..e_L."""
        phi, new, es, r = self.phi, [xs[0]], [], xs[0]
        *pis, top = self.precisions
        for layer, z, branch, pi in zip(self.params, zs, branches, pis):
            mu = predict(layer, r)
            new.append(self.stop_at_kink(branch.side, mu + z))
            es.append(new[-1] - mu if pi is None else pi * (new[-1] - mu))
            r = phi(new[-1])
        return new, [*es, -top * find_loss(self.loss).slope(predict(self.params[-1], r), self.y)]

    def down(self, xs: Activities, es: Activities) -> tuple[Activities, list[Branch]]:
        """One pass down: dF/de_l = e_l - d_l for l = 1..L-1, and the branch of each layer.

        A held unit has d_l = e_l.
        """
        d, slopes, branches = es[-1], [], []
        for layer, x, e in zip(self.params[:0:-1], xs[:0:-1], es[-2::-1]):
            push = d @ layer.W
            branch = self.choose_branch(x, e, push)
            d = jnp.where(branch.held, e, push * branch.slope)
            slopes.insert(0, e - d)
            branches.insert(0, branch)
        return slopes, branches

    def bend(self, xs: Activities) -> Callable:
        """The curvature of the weighted loss in the output mu_L, as a map of its changes."""
        pi = self.precisions[-1]
        if self.squared:
            return lambda rise: pi * rise
        slope = find_loss(self.loss).slope
        mu = predict(self.params[-1], firing(xs, self.activation)[-1])
        return lambda rise: pi * jax.jvp(lambda mu: slope(mu, self.y), (mu,), (rise,))[1]

    def curvature(self, branches: list[Branch], moves: Activities, bend: Callable) -> Activities:
        """(pi + J^T H J) times `moves` of the errors, H `bend`: one pass up and one pass down."""
        rise, es = jnp.zeros_like(moves[0]), []
        for layer, move, branch, pi in zip(self.params[1:], moves, branches, self.precisions):
            step = jnp.where(branch.held, 0, rise + move)
            es.append(step - rise if pi is None else pi * (step - rise))
            rise = (branch.slope * step) @ layer.W.T
        d, out = -bend(rise), []
        for layer, e, branch in zip(self.params[:0:-1], es[::-1], branches[::-1]):
            d = jnp.where(branch.held, e, (d @ layer.W) * branch.slope)
            out.insert(0, e - d)
        return out


def init(key: Key[Array, ""], sizes: tuple[int, ...], activation: Named = "tanh") -> Params:
    """Draw a network as `network.init` does; for a kinked phi, scale hidden weights by sqrt 2.

    The factor keeps the size of the activities from layer to layer (He et al. 2015).
    """
    first, *rest = network.init(key, sizes)
    gain = math.sqrt(2) if find_activation(activation) in KINKED else 1.0
    return [first, *(layer._replace(W=gain * layer.W) for layer in rest)]
