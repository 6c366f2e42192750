"""Do the chapters print the same on another machine? Run them under other arithmetics.

Numbers differ in their last digits between processors, thread counts and versions of the
compiler, and a training carries such a difference into its first digits. What the tests
compare must not depend on it: nbval runs each chapter under each setting below and compares
what is printed with what is committed. Nothing that was compiled before is used. A flag that
this XLA does not know is passed over.

    python tools/elsewhere.py                                # all chapters
    python tools/elsewhere.py book/foundations/graph.ipynb   # these
"""

import os
import subprocess
import sys

from book import chapters, enter_root

OPTIMISED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
ARITHMETICS = {
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "optimisation level 0": OPTIMISED | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
    "optimisation level 3": OPTIMISED | {"XLA_FLAGS": "--xla_backend_optimization_level=3"},
    "no fusion emitters": {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"},
    "vectors of AVX": OPTIMISED | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"},
    "highest precision": OPTIMISED | {"JAX_DEFAULT_MATMUL_PRECISION": "highest"},
}


def main() -> None:
    enter_root()
    wanted = sys.argv[1:] or list(map(str, chapters()))
    differ = {name: run(name, wanted) for name in ARITHMETICS}
    for name, cells in differ.items():
        print(f"{name}: {'passed over' if cells is None else f'{len(cells)} cells differ'}")
        for cell in cells or ():
            print(f"  {cell}")
    sys.exit(any(differ.values()))


def run(name: str, notebooks: list[str]) -> list[str] | None:
    """The cells whose output differs; None where XLA does not know the setting's flags."""
    environment = os.environ | ARITHMETICS[name] | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    threads = one_core if name == "one thread" else None

    def python(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=environment, preexec_fn=threads, capture_output=True, encoding="utf-8"
        )

    if python("-c", "import jax; jax.numpy.ones(1)").returncode:
        return None
    print(f"--- {name}", flush=True)
    tested = python("-m", "pytest", "--nbval", "-q", "-n", "2", "--dist", "loadfile", *notebooks)
    print(tested.stdout, flush=True)
    if tested.returncode not in (0, 1):
        sys.exit(tested.stderr)
    lines = tested.stdout.splitlines()
    return [line.removeprefix("FAILED ") for line in lines if line.startswith("FAILED ")]


def one_core() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


if __name__ == "__main__":
    main()
