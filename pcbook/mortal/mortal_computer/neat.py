"""NEAT: a population of networks evolves weights and structure on XOR.

A genome is a set of connections, each with an innovation number: the same connection has the
same number in every genome, so that two genomes can be aligned for crossover and compared.
The distance of two genomes is

    (number of genes that only one of them has) + 0.4 (mean weight difference of the others),

and genomes nearer than a threshold to a representative are one species. A species has children
in proportion to its mean fitness, and the fitness of a genome is (4 - sum of errors)^2
(Stanley & Miikkulainen 2002).
"""

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float

from pcbook.core.arguments import Allowed, Index, checked

XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float), np.array([0, 1, 1, 0], float)
IN, BIAS, OUT = (0, 1), 2, 3  # nodes; hidden nodes are numbered from 4
JITTER = 2.5  # the most that a mutation changes a weight


_distance = Allowed("a number of at least 0", lambda value: value >= 0)  # infinity included


class Gene(NamedTuple):
    """A connection: from one node to another, its weight, and whether it is in use."""

    source: int
    target: int
    weight: float
    on: bool = True


Genome = dict[int, Gene]  # by innovation number


class Ancestry:
    """Innovation numbers: a connection or node that any genome had before keeps its number."""

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
        """The smallest network: every input and the bias connected to the output."""
        return {self.connection(node, OUT): Gene(node, OUT, rng.normal()) for node in (*IN, BIAS)}


@checked
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
    """Whether connections, in use or not, lead from one node to another."""
    return start == goal or any(
        leads(genome, gene.target, goal) for gene in genome.values() if gene.source == start
    )


def absent(genome: Genome) -> list[tuple[int, int]]:
    """The connections that could be added without closing a loop."""
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
    """A child of one parent: weights change, and sometimes a node or a connection is added."""
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
    """A child of two parents: shared genes from either at random, the others from the fitter."""
    child = {}
    for number, gene in fitter.items():
        twin = other.get(number, gene)
        off = not (gene.on and twin.on) and rng.random() < 0.75
        child[number] = (gene if rng.random() < 0.5 else twin)._replace(on=not off)
    return child


def distance(a: Genome, b: Genome) -> float:
    """Number of genes that only one genome has, and 0.4 times the mean weight difference."""
    both = a.keys() & b.keys()
    gap = sum(abs(a[n].weight - b[n].weight) for n in both) / max(len(both), 1)
    return len(a.keys() ^ b.keys()) + 0.4 * gap


@checked
def fitness(genome: Genome) -> float:
    """(4 - sum of errors)^2 on XOR: 16 is perfect."""
    x, y = XOR
    return float((4 - np.abs(respond(genome, x) - y).sum()) ** 2)


@checked
def solves(genome: Genome) -> bool:
    """Whether every output is on the right side of 0.5."""
    x, y = XOR
    return bool(((respond(genome, x) > 0.5) == y).all())


@checked
def evolve(
    seed: Index,
    *,
    generations: int = 100,
    size: int = 150,
    grow: bool = True,
    mate: bool = True,
    threshold: Annotated[float | int, _distance] = 3.0,
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
    """The indices of the genomes of each species; one near no representative founds a new one."""
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


def offspring(
    rng: np.random.Generator,
    genomes: list[Genome],
    scores: Float[np.ndarray, " size"],
    species: list[list[int]],
    ancestry: Ancestry,
    grow: bool,
    mate: bool,
) -> list[Genome]:
    """The next generation: species have children by mean fitness, from the best fifth of each."""
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
