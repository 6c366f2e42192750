"""A mortal computer: a creature that infers, learns and grows in order to last.

It has a wall, and what is inside meets the outside only through what it senses and does.
It has a temperature to keep, and energy to spend. Its belief x about the heat that comes,
its synapses w and their sizes m descend one free energy, each at a pace of its own,

    F = (s - x)^2 / 2 + (x - mu)^2 / 2 + c sum_k (m_k + |w_k|^2 / 2),
    mu = sum_k m_k w_k . (cos 2 pi t / P_k, sin 2 pi t / P_k),

with s what the skin feels and a clock for each period P_k: inference dx/dt = -a dF/dx, fast;
learning dw/dt = -b dF/dw, slower; selection dm/dt = -g dF/dm, slowest (mortal inference,
learning and selection: Ororbia & Friston 2023). It is dead when the energy or the wall is gone.

In the second half it forages by run and tumble, and a population of others evolves its
structure (NEAT: Stanley & Miikkulainen 2002) beside one that grows along the gradient.

Chapter: book/mortal/mortal_computer.ipynb
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, Key

from pcbook.core.checks import check_number
from pcbook.core.network import Layer, Params, forward
from pcbook.core.relaxation import Number
from pcbook.foundations.predictive_coding import rule

# --- a wall

OUTSIDE, SENSE, ACT, INSIDE = range(4)

# Whatever moves another is moved by it as much; by senses and actions, in two steps, it cancels.
MUTUAL = np.array(
    [[0.7, 0.2, -0.2, 0.0], [0.2, 0.6, 0.0, 0.2], [-0.2, 0.0, -0.2, 0.2], [0.0, 0.2, 0.2, 0.7]]
)


def wired(rng: np.random.Generator, leak: float = 0.0) -> Float[np.ndarray, "4 4"]:
    """A creature wired at random: how each of its four moves with each of them a step before.

    The outside does not move the inside, nor the actions; the inside does not move the
    outside, nor the senses: they meet through the blanket alone. But for a `leak`, an arrow
    from the outside in. Couplings are normal numbers, scaled until the largest eigenvalue is 0.9.
    """
    A = rng.normal(size=(4, 4))
    A[[INSIDE, ACT, OUTSIDE, SENSE], [OUTSIDE, OUTSIDE, INSIDE, INSIDE]] = leak, 0, 0, 0
    return 0.9 * A / np.abs(np.linalg.eigvals(A)).max()


def wander(key: Key[Array, ""], A: Float[Array, "n n"], steps: int) -> Float[Array, "steps n"]:
    """A life of z' = A z + noise of variance 1, once 200 steps have made it forget its start."""

    def step(z, noise):
        z = A @ z + noise
        return z, z

    noises = random.normal(key, (steps + 200, len(A)))
    return lax.scan(step, jnp.zeros(len(A)), noises)[1][200:]


def lagged(A: Float[np.ndarray, "4 4"], past: int) -> Float[np.ndarray, "n n"]:
    """Stationary covariance: inside and outside now, the blanket now and `past` steps back.

    In this order; C_0 = A C_0 A^T + I, and C_h = A^h C_0 between z of now and of h steps ago.
    """
    n = len(A)
    C = np.linalg.solve(np.eye(n * n) - np.kron(A, A), np.eye(n).ravel()).reshape(n, n)
    powers = [C]
    for _ in range(past):
        powers.append(A @ powers[-1])
    blocks = [
        [powers[j - i] if j >= i else powers[i - j].T for j in range(past + 1)]
        for i in range(past + 1)
    ]
    picked = [INSIDE, OUTSIDE, *(n * h + b for h in range(past + 1) for b in (SENSE, ACT))]
    return np.block(blocks)[np.ix_(picked, picked)]


def windows(z: Float[np.ndarray, "steps 4"], past: int) -> Float[np.ndarray, "samples n"]:
    """Inside and outside of each moment, with the blanket of then and of `past` steps back."""
    blanket = z[:, [SENSE, ACT]]
    back = [blanket[past - h : len(z) - h] for h in range(past + 1)]
    return np.concatenate([z[past:, [INSIDE, OUTSIDE]], *back], 1)


def shared(C: Float[np.ndarray, "n n"]) -> float:
    """Information (nats) that the first two of Gaussian variables share, given all the others.

    -ln(1 - r^2) / 2 with r their partial correlation, read off the inverse of the covariance.
    """
    P = np.linalg.inv(C)
    return float(-np.log1p(-(P[0, 1] ** 2) / (P[0, 0] * P[1, 1])) / 2)


# --- one free energy, three paces

PERIODS = jnp.array([300.0, 200.0, 130.0, 100.0, 64.0, 48.0, 36.0, 25.0])  # steps
DAY, TIDE = 3, 6  # the two of them that the world has
CLOCKS = len(PERIODS)
PRICE = 0.005  # of a synapse, in free energy
FILOPODIUM = 0.05  # size of a synapse that is not there: it probes, and hardly acts
LAG, TAU = 8, 20.0  # steps from a command to its heat; steps in which the body cools
COMFORT, LETHAL = 1.5, 3.0  # degrees off: digestion suffers, the wall wears
STRONGEST = 2.0  # degrees a step: what the heater can do


class Paces(NamedTuple):
    """Size of a step along each of the three flows; 0 switches it off."""

    inference: Number = 0.3
    learning: Number = 0.04
    selection: Number = 0.05


PACES = Paces()


class Mind(NamedTuple):
    """The belief x, the synapses w of each clock, and their sizes m between 0.05 and 1."""

    x: Float[Array, ""]
    w: Float[Array, "clocks 2"]
    m: Float[Array, " clocks"]


def clocks(t: Number | Float[Array, ""]) -> Float[Array, "clocks 2"]:
    """Cosine and sine of every clock at step `t`."""
    angle = 2 * jnp.pi * t / PERIODS
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


def expect(mind: Mind, hands: Float[Array, "clocks 2"]) -> Float[Array, ""]:
    """The prediction mu from the clocks."""
    return ((mind.w * hands).sum(-1) * mind.m).sum()


def free_energy(
    mind: Mind, s: Number, hands: Float[Array, "clocks 2"], price: float = PRICE
) -> Float[Array, ""]:
    """F: what the skin feels and is not believed, what is believed and not expected, upkeep."""
    upkeep = mind.m.sum() + (mind.w**2).sum() / 2
    return (s - mind.x) ** 2 / 2 + (mind.x - expect(mind, hands)) ** 2 / 2 + price * upkeep


def flow(mind: Mind, s: Number, hands: Float[Array, "clocks 2"], paces: Paces) -> Mind:
    """A step of all three down the same hill, each at its pace."""
    e = mind.x - expect(mind, hands)
    x = mind.x + paces.inference * (s - mind.x - e)
    w = mind.w + paces.learning * (e * mind.m[:, None] * hands - PRICE * mind.w)
    m = mind.m + paces.selection * (e * (mind.w * hands).sum(-1) - PRICE)
    return Mind(x, w, jnp.clip(m, FILOPODIUM, 1))


def weather(key: Key[Array, ""], steps: int, regular: Number = 1.0) -> Float[Array, " steps"]:
    """Heat (degrees a step) that each moment brings: a day and a tide, of its own height and phase.

    With `regular` below 1 its place is taken, in part, by weather of the same variance that is
    forgotten in 20 steps. Raises ValueError unless regular is from 0 to 1.
    """
    by = "from 0 (by chance) to 1 (by the clock)"
    check_number(by, lambda value: 0 <= value <= 1, regular=regular)
    height_key, phase_key, first_key, noise_key = random.split(key, 4)
    heights = random.uniform(height_key, (2,), minval=0.7, maxval=1.3) * jnp.array([0.45, 0.2])
    phases = random.uniform(phase_key, (2,), maxval=2 * jnp.pi)
    t = jnp.arange(steps)[:, None]
    rhythm = (heights * jnp.cos(2 * jnp.pi * t / PERIODS[jnp.array([DAY, TIDE])] + phases)).sum(-1)
    keep = jnp.exp(-1 / 20)

    def step(c, noise):
        c = keep * c + jnp.sqrt(1 - keep**2) * noise
        return c, c

    chance = lax.scan(step, random.normal(first_key), random.normal(noise_key, (steps,)))[1]
    spread = jnp.sqrt((heights**2).sum() / 2)
    return regular * rhythm + jnp.sqrt(1 - regular**2) * spread * chance


class Body(NamedTuple):
    """Degrees off the set point, energy, wall (0 to 1), and the heat that is under way."""

    T: Float[Array, ""]
    energy: Float[Array, ""]
    wall: Float[Array, ""]
    heat: Float[Array, " lag"]

    @property
    def alive(self) -> Bool[Array, ""]:
        """Whether there is energy left, and a wall."""
        return (self.energy > 0) & (self.wall > 0)


def regulate(body: Body, heat: Number, command: Number, lethal: Number = LETHAL) -> Body:
    """A step of the body: it drifts with the outer `heat` and the one that it ordered LAG ago."""
    T = body.T * (1 - 1 / TAU) + heat + body.heat[0]
    wall = jnp.minimum(1, body.wall + 0.01 * (1 - (T / lethal) ** 2))
    return Body(T, body.energy, wall, jnp.append(body.heat[1:], command))


def live(
    key: Key[Array, ""],
    heat: Float[Array, " steps"],
    food: Float[Array, " steps"],
    *,
    paces: Paces = PACES,
    noise: Number = 0.1,
    budget: Number = 60.0,
    gain: Number = 0.05,
    lethal: Number = LETHAL,
    hurt: int = -1,
    cut: Float[Array, " clocks"] | None = None,
) -> tuple[Body, Mind, dict[str, Float[Array, "steps ..."]]]:
    """One life: how it ends, and its diary.

    At each step it feels the outer `heat` through `noise`, moves its mind down the free
    energy, and orders u = -(gain T + x + what the clocks expect to change until it arrives).
    It digests `food` the worse the further its temperature is off, and pays 1 for being,
    0.2 |u| for heating and 0.2 for each whole synapse; it can hold no more than its `budget`.
    Its wall wears while |T| is above `lethal`: infinity is a wall of stone.
    At step `hurt` the synapses where `cut` is 1 are torn out. What is dead no longer changes.
    Raises ValueError for a budget that is not positive.
    """
    check_number("a positive number", lambda value: value > 0, budget=budget)
    cut = jnp.zeros(CLOCKS) if cut is None else cut

    def step(carry, now):
        body, mind = carry
        t, outside, meal, grain = now
        torn = (t == hurt) * cut
        mind = Mind(
            mind.x,
            mind.w * (1 - torn[:, None]),
            jnp.where(torn > 0, FILOPODIUM, mind.m),
        )
        s, hands = outside + noise * grain, clocks(t)
        F = free_energy(mind, s, hands)
        thought = flow(mind, s, hands, paces)
        change = expect(thought, clocks(t + LAG)) - expect(thought, hands)
        u = jnp.clip(-(gain * body.T + thought.x + change), -STRONGEST, STRONGEST)
        after = regulate(body, outside, u, lethal)
        digested = meal * jnp.exp(-((after.T / COMFORT) ** 2) / 2)
        spent = 1 + 0.2 * jnp.abs(u) + 0.2 * thought.m.sum()
        after = after._replace(energy=jnp.minimum(budget, body.energy + digested - spent))
        alive = body.alive
        body, mind = jax.tree.map(
            lambda new, old: jnp.where(alive, new, old), (after, thought), (body, mind)
        )
        diary = {"T": body.T, "u": u, "F": F, "energy": body.energy, "wall": body.wall}
        return (body, mind), diary | {"m": mind.m, "x": mind.x, "alive": body.alive}

    steps = len(heat)
    zero = jnp.float32(0)
    born = (
        Body(zero, jnp.float32(budget), jnp.float32(1), jnp.zeros(LAG)),
        Mind(zero, jnp.zeros((CLOCKS, 2)), jnp.full(CLOCKS, 0.5)),
    )
    moments = (jnp.arange(float(steps)), heat, food, random.normal(key, (steps,)))
    (body, mind), diary = lax.scan(step, born, moments)
    return body, mind, diary


def swing(height: float, period: float, gain: float) -> float:
    """Amplitude (degrees) of a body that acts by reflex alone, under a heat of one period.

    In the steady state of T(t + 1) = (1 - 1/tau) T(t) + d(t) - gain T(t - LAG),
    |d| / |e^iw - 1 + 1/tau + gain e^(-i w LAG)|, w = 2 pi / period.
    """
    w = 2 * np.pi / period
    return height / abs(np.exp(1j * w) - 1 + 1 / TAU + gain * np.exp(-1j * w * LAG))


def variety(values: Float[np.ndarray, " n"], width: float) -> float:
    """Entropy (bits) of numbers told apart to within `width`."""
    _, counts = np.unique(np.round(np.asarray(values) / width), return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())


# --- food

RICHEST, REACH, SPEED = 3.0, 0.2, 0.03  # food a step at the source; its width; a step's length


class Manner(NamedTuple):
    """How to move: the chance to tumble after the free energy rose, and after it fell; speed."""

    worse: Number
    better: Number
    speed: Number = SPEED


MANNERS = {
    "free energy": Manner(1.0, 0.0),
    "random": Manner(0.5, 0.5),
    "sessile": Manner(0.0, 0.0, 0.0),
}


def plenty(place: Float[Array, "*n 2"]) -> Float[Array, "*n"]:
    """Food (energy a step) at a place of the square [-1/2, 1/2)^2, whose edges are joined."""
    return RICHEST * jnp.exp(-(place**2).sum(-1) / (2 * REACH**2))


def forage(
    key: Key[Array, ""], manner: Manner, *, steps: int, noise: Number = 0.01
) -> tuple[Float[Array, "steps 2"], Float[Array, " steps"]]:
    """Run and tumble: the place and the food of every step.

    The creature expects plenty, so its surprise is F = (RICHEST - s)^2 / 2 with s the food as it
    tastes it, through `noise`. While F falls it runs on; when F has risen it tumbles.
    """
    place_key, head_key, turn_key, grain_key, coin_key = random.split(key, 5)

    def step(carry, now):
        place, heading, before = carry
        grain, coin, turn = now
        F = (RICHEST - plenty(place) - noise * grain) ** 2 / 2
        tumbles = coin < jnp.where(before < F, manner.worse, manner.better)
        heading = jnp.where(tumbles, turn, heading)
        stride = manner.speed * jnp.stack([jnp.cos(heading), jnp.sin(heading)])
        place = (place + stride + 0.5) % 1 - 0.5
        return (place, heading, F), (place, plenty(place))

    start = random.uniform(place_key, (2,), minval=-0.5, maxval=0.5)
    moments = (
        random.normal(grain_key, (steps,)),
        random.uniform(coin_key, (steps,)),
        random.uniform(turn_key, (steps,), maxval=2 * jnp.pi),
    )
    carry = (start, random.uniform(head_key, maxval=2 * jnp.pi), jnp.float32(jnp.inf))
    return lax.scan(step, carry, moments)[1]


def lifetimes(
    food: Float[np.ndarray, "creatures steps"], budget: float | int, cost: float = 1.0
) -> Float[np.ndarray, " creatures"]:
    """The step at which each creature's energy is gone, or infinity if it lasts.

    It is born with a full `budget`, and what does not fit is lost. Raises ValueError for a
    budget that is not positive.
    """
    check_number("a positive number", lambda value: value > 0, budget=budget)
    energy, died = np.full(len(food), float(budget)), np.full(len(food), np.inf)
    for t, meal in enumerate(np.asarray(food, float).T):
        energy = np.minimum(budget, energy + meal - cost)
        died = np.where((energy <= 0) & np.isinf(died), t + 1, died)
    return died


# --- structure that evolves

XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float), np.array([0, 1, 1, 0], float)
IN, BIAS, OUT = (0, 1), 2, 3  # nodes; hidden ones are numbered from 4
JITTER = 2.5  # at most, of a weight at a mutation


class Gene(NamedTuple):
    """A connection: from one node to another, its weight, and whether it is in use."""

    source: int
    target: int
    weight: float
    on: bool = True


Genome = dict[int, Gene]  # by innovation number


class Ancestry:
    """Innovation numbers: what has been invented before, anywhere, is the same gene again."""

    def __init__(self):
        self.connections: dict[tuple[int, int], int] = {}
        self.nodes: dict[int, int] = {}

    def connection(self, source: int, target: int) -> int:
        """The number of the connection between two nodes."""
        return self.connections.setdefault((source, target), len(self.connections))

    def node(self, split: int) -> int:
        """The node that splits the connection of that number."""
        return self.nodes.setdefault(split, OUT + 1 + len(self.nodes))

    def ancestor(self, rng: np.random.Generator) -> Genome:
        """The least of all networks: every input, and the bias, to the output."""
        return {self.connection(node, OUT): Gene(node, OUT, rng.normal()) for node in (*IN, BIAS)}


def respond(genome: Genome, x: Float[np.ndarray, "batch 2"]) -> Float[np.ndarray, " batch"]:
    """Output of the network for each input: sigmoids of slope 4.9, as in the paper."""
    into: dict[int, list[Gene]] = {}
    for gene in genome.values():
        if gene.on:
            into.setdefault(gene.target, []).append(gene)
    known = {0: x[:, 0], 1: x[:, 1], BIAS: np.ones(len(x))}

    def value(node):
        if node not in known:
            drive = sum((g.weight * value(g.source) for g in into.get(node, ())), np.zeros(len(x)))
            known[node] = 1 / (1 + np.exp(-np.clip(4.9 * drive, -50, 50)))
        return known[node]

    return value(OUT)


def leads(genome: Genome, start: int, goal: int) -> bool:
    """Whether a signal could get from one node to another, through connections on or off."""
    return start == goal or any(
        leads(genome, gene.target, goal) for gene in genome.values() if gene.source == start
    )


def absent(genome: Genome) -> list[tuple[int, int]]:
    """The connections that the network could still grow: none that would close a loop."""
    there = {(gene.source, gene.target) for gene in genome.values()}
    nodes = sorted({node for ends in there for node in ends})
    return [
        (source, target)
        for source in nodes
        for target in nodes
        if source != OUT
        and target >= OUT
        and (source, target) not in there
        and not leads(genome, target, source)
    ]


def mutated(rng: np.random.Generator, genome: Genome, ancestry: Ancestry, grow: bool) -> Genome:
    """A child of one parent: weights jittered, and now and then a node or a connection more."""
    child = dict(genome)
    if rng.random() < 0.8:
        for number, gene in child.items():
            before = 0.0 if rng.random() < 0.1 else gene.weight
            child[number] = gene._replace(weight=before + rng.uniform(-JITTER, JITTER))
    if grow and rng.random() < 0.03:
        split = int(rng.choice([n for n, gene in child.items() if gene.on]))
        gene, node = child[split], ancestry.node(split)
        child[split] = gene._replace(on=False)
        child[ancestry.connection(gene.source, node)] = Gene(gene.source, node, 1.0)
        child[ancestry.connection(node, gene.target)] = Gene(node, gene.target, gene.weight)
    if grow and rng.random() < 0.05 and (possible := absent(child)):
        source, target = possible[rng.integers(len(possible))]
        child[ancestry.connection(source, target)] = Gene(source, target, rng.normal())
    return child


def crossed(rng: np.random.Generator, fitter: Genome, other: Genome) -> Genome:
    """A child of two: genes of the same innovation from either, the rest from the fitter."""
    child = {}
    for number, gene in fitter.items():
        twin = other.get(number, gene)
        off = not (gene.on and twin.on) and rng.random() < 0.75
        child[number] = (gene if rng.random() < 0.5 else twin)._replace(on=not off)
    return child


def distance(a: Genome, b: Genome) -> float:
    """How unlike two genomes are: genes that one has alone, and 0.4 times the mean weight gap."""
    both = a.keys() & b.keys()
    gap = sum(abs(a[n].weight - b[n].weight) for n in both) / max(len(both), 1)
    return len(a.keys() ^ b.keys()) + 0.4 * gap


def fitness(genome: Genome) -> float:
    """(4 - sum of errors)^2 on XOR: 16 is perfect."""
    x, y = XOR
    return float((4 - np.abs(respond(genome, x) - y).sum()) ** 2)


def solves(genome: Genome) -> bool:
    """Whether every output is on the right side of a half."""
    x, y = XOR
    return bool(((respond(genome, x) > 0.5) == y).all())


def evolve(
    seed: int,
    *,
    generations: int = 100,
    size: int = 150,
    grow: bool = True,
    mate: bool = True,
    threshold: float = 3.0,
) -> list[Genome]:
    """The fittest genome of each generation, up to the first that solves XOR.

    `grow`, `mate` and an infinite `threshold` between species switch off structural mutation,
    crossover and speciation. Raises ValueError for fewer than 2 genomes or 1 generation.
    """
    if size < 2 or generations < 1:
        raise ValueError(f"size = {size}, generations = {generations}: must be at least 2 and 1")
    rng, ancestry = np.random.default_rng(seed), Ancestry()
    ancestor = ancestry.ancestor(rng)
    genomes = [mutated(rng, ancestor, ancestry, False) for _ in range(size)]
    representatives, champions = [ancestor], []
    for _ in range(generations):
        scores = np.array([fitness(genome) for genome in genomes])
        champions.append(genomes[scores.argmax()])
        if solves(champions[-1]):
            break
        species = sorted_into_species(genomes, representatives, threshold)
        representatives = [genomes[rng.choice(members)] for members in species]
        genomes = offspring(rng, genomes, scores, species, ancestry, grow, mate)
    return champions


def sorted_into_species(
    genomes: list[Genome], representatives: list[Genome], threshold: float
) -> list[list[int]]:
    """The places of the genomes of each species: near one representative, or new."""
    species = [[] for _ in representatives]
    heads = list(representatives)
    for place, genome in enumerate(genomes):
        for head, members in zip(heads, species):
            if distance(genome, head) < threshold:
                members.append(place)
                break
        else:
            heads.append(genome)
            species.append([place])
    return [members for members in species if members]


def offspring(rng, genomes, scores, species, ancestry, grow, mate) -> list[Genome]:
    """The next generation: species have children by their mean fitness, of their best fifth."""
    means = np.array([scores[members].mean() for members in species])
    shares = np.floor(means / means.sum() * len(genomes)).astype(int)
    shares[means.argmax()] += len(genomes) - shares.sum()
    children = []
    for members, share in zip(species, shares):
        ranked = sorted(members, key=lambda place: -scores[place])
        parents = ranked[: max(1, len(ranked) // 5)]
        if share and len(ranked) > 5:
            children.append(genomes[ranked[0]])
            share -= 1
        for _ in range(share):
            first, second = sorted(rng.choice(parents, 2), key=lambda place: -scores[place])
            child = genomes[first]
            if mate and rng.random() < 0.75:
                child = crossed(rng, child, genomes[second])
            children.append(mutated(rng, child, ancestry, grow))
    return children


# --- structure that grows

UNITS, CANDIDATES, STRETCH = 5, 16, 200


def sprout(
    key: Key[Array, ""],
    params: Params,
    unit: int | Int[Array, ""],
    x: Float[Array, "batch 2"],
    y: Float[Array, "batch 1"],
    by_gradient: Number,
) -> Params:
    """The network with one hidden neuron more, at place `unit`, still silent.

    Candidates with random synapses from the input probe; the one is kept whose absent synapse
    to the output has the steepest free energy, |mean of -e phi(x)|: all of it known at its two
    ends. With `by_gradient` 0, one by lot.
    """
    first, last = params
    weight_key, bias_key = random.split(key)
    W = 2 * random.normal(weight_key, (CANDIDATES, 2))
    b = 2 * random.normal(bias_key, (CANDIDATES,))
    e = y - forward(params, x)
    slope = jnp.abs((e * jnp.tanh(x @ W.T + b)).mean(0))
    best = jnp.argmax(slope * by_gradient)
    return [Layer(first.W.at[unit].set(W[best]), first.b.at[unit].set(b[best])), last]


def grow(
    key: Key[Array, ""], *, by_gradient: Number = 1.0
) -> tuple[Params, Float[Array, " stages"], Bool[Array, " stages"]]:
    """Learn XOR by predictive coding, with a hidden neuron more after each stretch of updates.

    From no hidden neuron to 5, 200 updates each. Returns the last network and, at the end of
    each stretch, the loss and whether XOR is solved.
    """
    x, y = jnp.array(XOR[0], float), jnp.array(XOR[1], float)[:, None]
    learn, adam = rule(steps=20), optax.adam(0.03)

    def stage(params, now):
        unit, key = now
        there = jnp.arange(UNITS) < unit
        params = jax.tree.map(
            lambda new, old: jnp.where(unit > 0, new, old),
            sprout(key, params, unit - 1, x, y, by_gradient),
            params,
        )

        def update(carry, _):
            params, opt = carry
            loss, (first, last), _ = learn.gradient(params, (), x, y, key)
            gradient = [
                Layer(first.W * there[:, None], first.b * there),
                Layer(last.W * there, last.b),
            ]
            change, opt = adam.update(gradient, opt)
            return (optax.apply_updates(params, change), opt), loss

        (params, _), losses = lax.scan(update, (params, adam.init(params)), length=STRETCH)
        solved = ((forward(params, x) > 0.5) == (y > 0.5)).all()
        return params, (losses[-1], solved)

    nothing = [
        Layer(jnp.zeros((UNITS, 2)), jnp.zeros(UNITS)),
        Layer(jnp.zeros((1, UNITS)), jnp.zeros(1)),
    ]
    moments = (jnp.arange(UNITS + 1), random.split(key, UNITS + 1))
    params, (losses, solved) = lax.scan(stage, nothing, moments)
    return params, losses, solved
