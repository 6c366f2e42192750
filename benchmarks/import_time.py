"""What `import pcbook` costs, against `import jax`, each in an interpreter of its own.

The package imports a module when it is first used, so `import pcbook` says little: the
second ratio is that of all that training by predictive coding needs.

    python benchmarks/import_time.py [rounds]
"""

import subprocess
import sys
import time

import numpy as np
from steps import machine

ROUNDS = 15
BASE = "import jax"
LIMITS = {
    "import pcbook": 1.5,
    "import pcbook.predictive_coding": 1.5,
}


def seconds(statement: str) -> float:
    """From the start of an interpreter to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main(rounds: int = ROUNDS) -> bool:
    """Print the times and the ratios; whether every ratio is within its limit."""
    print(machine())
    statements = [BASE, *LIMITS]
    taken = np.array([[seconds(s) for s in statements] for _ in range(rounds + 1)])[1:]
    print(f"\n{'':<34}{'best s':>8}{'median':>8}{'ratio':>8}{'limit':>8}")
    within = True
    for statement, values in zip(statements, taken.T):
        ratio, limit = np.median(values / taken[:, 0]), LIMITS.get(statement, 1.0)
        within &= bool(ratio <= limit)
        times = f"{values.min():8.2f}{np.median(values):8.2f}"
        verdict = "" if ratio <= limit else "  TOO SLOW"
        print(f"{statement:<34}{times}{ratio:8.2f}{limit:8.2f}{verdict}")
    return within


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
