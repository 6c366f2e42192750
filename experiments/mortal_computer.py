"""NEAT on XOR, and without each of its three ideas: ten seeds each.

    python benchmarks/mortal_computer.py

Writes results/mortal_computer.json as it goes: a killed run goes on where it stopped.
For each seed: the generation that solved XOR, or null; the connections in use and the hidden
nodes of the last champion; and of the first seed, champions along the way, gene by gene.
"""

import math

from stored import load, save

from pcbook import mortal_computer as mc

NAME = "mortal_computer"
SEEDS, GENERATIONS = 10, 100
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


def main():
    results = load(NAME, seeds=SEEDS, generations=GENERATIONS, size=150)
    for name, options in VARIANTS.items():
        runs = results.setdefault(name, [])
        for seed in range(len(runs), SEEDS):
            champions = mc.evolve(seed, generations=GENERATIONS, **options)
            runs.append(summary(champions, name == "NEAT" and seed == 0))
            print(f"{name:18}seed {seed}: solved {runs[-1]['solved']}", flush=True)
            save(NAME, results)


if __name__ == "__main__":
    main()
