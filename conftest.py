"""For every test run, of the package's tests and of the notebooks."""

import os

# Progress bars are for readers: in a notebook under test they would count as output.
os.environ["TQDM_DISABLE"] = "1"
