"""NEAT on XOR, and without each of its three ideas: ten seeds each.

    python experiments/mortal_computer.py [--only NEAT] [--again]    # minutes

For each seed: the generation that solved XOR, or null; the connections in use and the hidden
nodes of the last champion; and of the first seed, champions along the way, gene by gene.
"""

import math
from functools import partial

from pcbook import mortal_computer as mc
from pcbook.runs.parts import run

SEEDS, GENERATIONS = 10, 100
SETTINGS = {"seeds": SEEDS, "generations": GENERATIONS, "size": 150}
VARIANTS = {
    "NEAT": {},
    "no crossover": {"mate": False},
    "one species": {"threshold": math.inf},
    "no new structure": {"grow": False},
}


def summary(champions, with_genomes):
    """What is kept of a run."""
    last = champions[-1]
    kept = {
        "solved": len(champions) if mc.solves(last) else None,
        "connections": sum(gene.on for gene in last.values()),
        "hidden": len({gene.target for gene in last.values()} - {mc.OUT}),
        "fitness": [round(mc.fitness(champion), 2) for champion in champions],
    }
    if with_genomes:
        places = sorted({round(i * (len(champions) - 1) / 5) for i in range(6)})
        kept["champions"] = {
            place + 1: [
                [number, g.source, g.target, round(g.weight, 3), int(g.on)]
                for number, g in sorted(champions[place].items())
            ]
            for place in places
        }
    return kept


def evolve(name):
    """The summaries of ten seeds."""
    found = []
    for seed in range(SEEDS):
        champions = mc.evolve(seed, generations=GENERATIONS, **VARIANTS[name])
        found.append(summary(champions, name == "NEAT" and seed == 0))
        print(f"{name:18}seed {seed}: solved {found[-1]['solved']}", flush=True)
    return found


def parts():
    return {(name,): partial(evolve, name) for name in VARIANTS}


if __name__ == "__main__":
    run(__file__, __doc__, SETTINGS, parts)
