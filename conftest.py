"""For every test run, of the package's tests and of the notebooks."""

import os

# Progress bars are for readers: in a notebook under test they would count as output.
os.environ["TQDM_DISABLE"] = "1"
# Small programs that run once should compile fast rather than run fast, as in the chapters.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
)
