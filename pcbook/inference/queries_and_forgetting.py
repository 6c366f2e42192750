"""Queries and forgetting: clamp anything, and learn one thing after another.

Nothing in the energy says which units are given and which are asked for. So whatever is
known is clamped, as firmly as it is believed, and the rest is inferred,

    e_L = pi k (y - mu_L),    dx_l/dt = -dF/dx_l,    k in [0, 1] for each unit of the output,

with causes x_0 ~ N(0, I) that are never seen (Salvatori et al. 2022). A memory without
layers predicts each unit from all others, e = x - W x; if missing units follow their own
error alone, they come to rest at the conditional mean (Tang et al. 2023).

Learning a second task overwrites the first where both use the same synapses. A gate, as
the basal ganglia may be one, gives each context its own neurons: lateral inhibition lets
the k most driven win, and a selector names the context (Ororbia et al. 2022).

Chapter: book/inference/queries_and_forgetting.ipynb
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Key

from pcbook.core.arguments import (
    Allowed,
    Count,
    Finite,
    Positive,
    checked,
    finite,
    share,
    some,
)
from pcbook.core.checks import check_number, check_width
from pcbook.core.energy import (
    Clamps,
    Energy,
    Precision,
    cache_hashable,
    settle,
    settle_then_learn,
)
from pcbook.core.network import Activities, Named, Params, as_float, firing, predict, predictor
from pcbook.core.pickling import picklable
from pcbook.core.relaxation import relax
from pcbook.core.rules import Rule, begin, exceeds, step
from pcbook.foundations.predictive_coding import chain, layer_precisions
from pcbook.store.claims import Measurement, criterion

__all__ = [
    "Answer",
    "Memory",
    "ask",
    "gated",
    "hidden_causes",
    "keeping_gates",
    "memorise",
    "move",
    "practise",
    "recall",
    "rule",
    "select",
    "transfer",
    "winners",
]

# --- one network, any question


class Answer(NamedTuple):
    """Activities x_0..x_{L-1} at the end of inference, and the output `y` that they predict."""

    xs: Activities
    y: Float[Array, "batch n_L"]


@checked
def ask(
    params: Params,
    y: Float[Array, "batch n_L"],
    known: Annotated[Float[Array, "*each _"], share],
    *,
    steps: Count = 200,
    rate: Positive = 0.1,
    activation: Named = "tanh",
    precision: Positive = 2.0,
) -> Answer:
    """Clamp the known units of the output, and infer the causes, and with them all the rest.

    `known`, (n_L,) or (batch, n_L), says how far each unit of `y` is believed: 1 is clamped, 0
    is free, and its value in `y` is not looked at. Raises ValueError for known outside [0, 1],
    steps < 1, rate <= 0, precision <= 0, or shapes that do not fit.
    """
    outputs = len(params[-1].W)
    check_width("y", y, outputs, "output")
    if jnp.shape(known) not in ((outputs,), jnp.shape(y)):
        raise ValueError(
            f"known has shape {jnp.shape(known)}: must be ({outputs},), a number for each output, "
            f"or {jnp.shape(y)}, for each sample too"
        )
    clamps = Clamps(None, y, precision * known)
    xs = settle(hidden_causes(activation), params, clamps, steps=steps, rate=rate).state
    return Answer(xs, predict(params[-1], firing(xs, activation)[-1]))


@checked
@cache
@picklable
def hidden_causes(activation: Named = "tanh", loss: Named = "squared error") -> Energy:
    """The energy of an output with causes x_0 ~ N(0, I) that are never seen.

    The input of a training loop, `clamps.x`, is not looked at. Where the precision of a unit
    of the output is zero it is not known, and what stands there in `clamps.y` is not looked at.
    """
    below = chain(activation, loss, prior=1.0)

    def given(params, clamps):
        y = as_float(clamps.y, params)
        *_, precision = layer_precisions(params, clamps.precision)
        mean = jnp.zeros((len(y), params[0].W.shape[1]), y.dtype)
        return clamps._replace(x=mean, y=jnp.where(precision > 0, y, 0))

    def value(params, xs, clamps):
        return below.value(params, xs, given(params, clamps))

    def start(params, clamps):
        return below.start(params, given(params, clamps))

    def velocity(params, xs, clamps):
        return below.velocity(params, xs, given(params, clamps))

    def update(params, xs, clamps):
        return below.update(params, xs, given(params, clamps))

    return Energy(value, start, velocity, update)


@checked
@cache_hashable
@picklable
def rule(
    *,
    steps: Count = 30,
    rate: Positive = 0.1,
    activation: Named = "tanh",
    loss: Named = "squared error",
    precision: Precision = 2.0,
    sample_weight: Callable[..., Array] | None = None,
) -> Rule:
    """Learn to predict whole outputs from causes that are never seen.

    The inputs that a training loop hands over are not looked at: the causes are inferred.
    The loss returned is the energy at the end of inference. The other options, and the errors
    raised, are those of `predictive_coding.rule`.
    """
    return settle_then_learn(
        "hidden causes",
        hidden_causes(activation, loss),
        predictor(activation),
        precision=precision,
        sample_weight=sample_weight,
        steps=steps,
        rate=rate,
    )


# --- a memory without layers


class Memory(NamedTuple):
    """Each unit predicts itself from all others: x = mean + W (x - mean), W with no diagonal."""

    W: Float[Array, "n n"]
    mean: Float[Array, " n"]

    def error(self, x: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
        """What each unit is, less what the others predict of it."""
        x = x - self.mean
        return x - x @ self.W.T


@checked
def memorise(x: Annotated[Float[Array, "samples n"], some], noise: Positive = 0.01) -> Memory:
    """The memory at which the Hebbian rule dW_ij = e_i x_j, i not j, comes to rest.

    With independent `noise` of that variance on each unit of each sample. If C is the
    covariance, then W = I - D^-1 C^-1, D the diagonal of C^-1: the regression of each unit
    on the others. Raises ValueError for noise <= 0.
    """
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x) + noise * jnp.eye(x.shape[1])
    precision = jnp.linalg.inv(covariance)
    return Memory(jnp.eye(len(mean)) - precision / jnp.diag(precision)[:, None], mean)


@checked
def recall(
    memory: Memory,
    x: Float[Array, "batch n"],
    known: Bool[Array, " n"],
    *,
    steps: Count = 500,
    rate: Positive = 0.2,
    dendritic: bool = True,
) -> Float[Array, "batch n"]:
    """Complete `x`: known units are clamped, the others start at the mean and settle.

    With `dendritic` each follows its own error alone, dx = -e. Otherwise it descends the
    energy |e|^2 / 2, dx = -e + W^T e, and bends to make the known units predictable as well.
    Raises ValueError for steps < 1, rate <= 0 or shapes that do not fit.
    """
    check_width("x", x, len(memory.mean), "only")

    def velocity(x):
        e = memory.error(x)
        return jnp.where(known, 0, -e if dendritic else -e + e @ memory.W)

    return relax(velocity, jnp.where(known, x, memory.mean), steps=steps, rate=rate).state


# --- a gate for each context


@checked
def winners(
    drive: Annotated[Float[Array, "contexts n"], finite], k: Count
) -> Bool[Array, "contexts n"]:
    """Lateral inhibition in the limit: of each row, the `k` most driven units are on.

    Raises ValueError unless 1 <= k <= n.
    """
    n = drive.shape[-1]
    check_number(f"1 to {n}, the number of units", lambda value: value <= n, k=k)
    ranks = jnp.argsort(jnp.argsort(-drive, axis=-1), axis=-1)
    return ranks < k


@checked
def gated(params: Params, gates: Bool[Array, "contexts n"], strength: Positive = 10.0) -> Params:
    """The network with an input more for each context, which silences units whose gate is shut.

    The first hidden layer must be one that is silent far below zero, as relu is. Raises
    ValueError unless there is a gate for each of its units.
    """
    check_width("gates", gates, len(params[0].W), "first hidden", len(gates))
    silence = -strength * (1 - gates.T.astype(params[0].W.dtype))
    return [params[0]._replace(W=jnp.concatenate([params[0].W, silence], 1)), *params[1:]]


@checked
@cache
@picklable
def keeping_gates(rule: Rule, contexts: Count) -> Rule:
    """The same rule, except that it leaves alone the synapses of the last `contexts` inputs."""

    def gradient(*arguments):
        loss, (first, *rest), state = rule.gradient(*arguments)
        return loss, [first._replace(W=first.W.at[:, -contexts:].set(0)), *rest], state

    return rule._replace(gradient=gradient)


@checked
def select(
    memories: Annotated[Sequence[Memory], Allowed("at least one memory", len)],
    x: Annotated[Float[Array, "batch n"], finite],
) -> Int[Array, " batch"]:
    """The context whose memory is least surprised: the one with the lowest energy |e|^2 / 2.

    Raises ValueError for a memory whose energies are not finite.
    """
    for memory in memories:
        check_width("x", x, len(memory.mean), "only")
    energies = jnp.stack([(memory.error(x) ** 2).sum(-1) for memory in memories])
    check_number(
        "memories whose energies are finite", lambda e: jnp.isfinite(e).all(), memories=energies
    )
    return energies.argmin(0)


@checked
def transfer(R: Float[np.ndarray, "tasks tasks"]) -> tuple[float, float]:
    """Average accuracy at the end, and backward transfer, of the accuracies R[after, on].

    Backward transfer is the mean change of a task's accuracy from when it was learned to
    the end: negative is forgetting (Lopez-Paz & Ranzato 2017).
    """
    return float(R[-1].mean()), float((R[-1] - np.diag(R))[:-1].mean())


# --- a pole to balance

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
Action = Annotated[
    int | Int[Array, ""], Allowed("0, to the left, or 1", lambda value: (value == 0) | (value == 1))
]
FARTHEST, STEEPEST, LONGEST = 2.4, 12 * np.pi / 180, 200


@checked
def accelerations(
    state: Annotated[Float[Array, " 4"], finite], force: Finite
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Of the cart and of the pole's angle, without friction (Barto, Sutton & Anderson 1983).

    The state is position (m), velocity, angle from upright (radians) and its velocity.
    """
    _, _, angle, spin = state
    sin, cos, total = jnp.sin(angle), jnp.cos(angle), CART + POLE
    push = (force + POLE * HALF_LENGTH * spin**2 * sin) / total
    twist = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / total))
    return push - POLE * HALF_LENGTH * twist * cos / total, twist


@checked
def move(state: Annotated[Float[Array, " 4"], finite], action: Action) -> Float[Array, " 4"]:
    """The state after 0.02 s of pushing left, action 0, or right, 1: an Euler step."""
    cart, pole = accelerations(state, FORCE * (2.0 * action - 1))
    return state + TAU * jnp.stack([state[1], cart, state[3], pole])


@checked
def fallen(state: Annotated[Float[Array, " 4"], finite]) -> Bool[Array, ""]:
    """Whether the pole leans by more than 12 degrees or the cart is more than 2.4 m away."""
    return (jnp.abs(state[0]) > FARTHEST) | (jnp.abs(state[2]) > STEEPEST)


@checked
def upright(key: Key[Array, ""]) -> Float[Array, " 4"]:
    """A state to start from: each number within 0.05 of zero."""
    return random.uniform(key, (4,), minval=-0.05, maxval=0.05)


@checked
def practise(
    rule: Rule,
    params: Params,
    *,
    optimizer: optax.GradientTransformation,
    moves: Count,
    key: Key[Array, ""],
    discount: Annotated[float, share] = 0.98,
    batch_size: Count = 60,
    memory: Count = 2000,
) -> tuple[Params, Int[Array, " moves"]]:
    """Learn to balance by Q-learning with replay: the network says what each action is worth.

    After every move, one batch from the last `memory` moves; the target of the action taken is
    reward + discount x the best value next, and of the other what the network says. An
    episode ends when the pole has fallen, or after 200 moves. Returns the parameters and, at
    each move, the length of the episode that it ended, or 0.
    """
    reset_key, key = random.split(key)
    learn_from = step(rule.gradient, optimizer)

    def one(carry, inputs):
        i, key = inputs
        learned, world, age, store = carry
        params = learned[0]
        act_key, explore_key, start_key, batch_key, rule_key = random.split(key, 5)
        value = rule.predict(params, world[None])[0]
        curious = random.uniform(explore_key) < jnp.maximum(0.05, 1 - i / (moves / 4))
        action = jnp.where(curious, random.randint(act_key, (), 0, 2), value.argmax())
        after, age = move(world, action), age + 1
        fell = fallen(after)
        over = fell | (age == LONGEST)
        event = (world, action, after, fell)
        store = jax.tree.map(lambda s, e: s.at[i % memory].set(e), store, event)
        rows = random.randint(batch_key, (batch_size,), 0, jnp.minimum(i + 1, memory))
        before, taken, then, ended = jax.tree.map(lambda s: s[rows], store)
        best = rule.predict(params, then).max(-1)
        goal = 1 + discount * jnp.where(ended, 0, best)
        target = rule.predict(params, before).at[jnp.arange(batch_size), taken].set(goal)
        learned, _ = learn_from(learned, (before, target, rule_key))
        world = jnp.where(over, upright(start_key), after)
        carry = (learned, world, jnp.where(over, 0, age), store)
        return carry, jnp.where(over, age, 0)

    world, nothing = upright(reset_key), jnp.zeros((memory, 4))
    store = (nothing, jnp.zeros(memory, int), nothing, jnp.zeros(memory, bool))
    carry = (begin(rule, optimizer, params, key), world, 0, store)
    (learned, *_), lengths = lax.scan(one, carry, (jnp.arange(moves), random.split(key, moves)))
    return learned[0], lengths


# --- criteria of the claims


@criterion("qf-any-query")
def answers_every_question(m: Measurement) -> bool:
    """Whether the means over the networks pass the threshold of every question.

    `named`, `corrected` and `kept` in percent, `completed` relative to the error of the mean
    image, `drawn` of ten digits.
    """
    means = {name: np.mean(value) for name, value in m.items()}
    labels = means["named"] > 80 and means["corrected"] > 50 and means["kept"] > 95
    return bool(labels and means["completed"] < 0.9 and means["drawn"] >= 9)


@criterion("qf-dendritic")
def recalls_the_conditional_mean(m: Measurement) -> bool:
    """Whether the dendritic rule ends within 0.01 of it, and the full gradient over 0.1 off."""
    return bool(m["dendritic"] < 1e-2 and m["gradient"] > 0.1)


@criterion("qf-turns")
def errs_less(m: Measurement) -> bool:
    """Whether the test error, in percent, is lower by over one point, and its interval above 0."""
    return exceeds(m["ahead"], 1)


@criterion("qf-gate")
def prevents_forgetting(m: Measurement) -> bool:
    """Whether the learned gate gains over 5 points, is near the oracle, and a shuffled is not.

    Final accuracies in percent; near is less than 2 points below, and a shuffled gate gains
    less than half as much.
    """
    learned, none, oracle, shuffled = (
        np.mean(m[gate]) for gate in ("learned", "none", "oracle", "shuffled")
    )
    needed = learned > none + 5 and learned > oracle - 2
    return bool(needed and shuffled - none < (learned - none) / 2)


@criterion("qf-pole")
def balances_longer(m: Measurement) -> bool:
    """Whether episodes are longer by over five moves, and their interval above 0."""
    return exceeds(m["ahead"], 5)
