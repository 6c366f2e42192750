"""How XLA compiles the chapters: the settings that the build, the tests and Binder share.

A chapter compiles hundreds of small programs and runs each of them for a moment, so they
should compile fast rather than run fast. What has been compiled is kept in `_build/compiled`:
the tests run each chapter again, and need not compile it again. A variable that is set
already is left as it is. JAX reads these variables in every version; flags of XLA are not
used, for a flag that a version does not know aborts the process.

    eval "$(python tools/settings.py)"     # the same settings for a shell
"""

import os
from pathlib import Path

SETTINGS = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / "_build" / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def apply() -> None:
    """Set them for this process and those that it starts; no progress bars, which are output."""
    os.environ["TQDM_DISABLE"] = "1"
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    for name, value in SETTINGS.items():
        print(f"export {name}=${{{name}-'{value}'}}")
