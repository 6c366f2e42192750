"""The types of the chapter's arrays."""

import numpy as np
from jaxtyping import Array, Float

Numbers = Array | np.ndarray
Weights = Float[Numbers, "units units"]
Steps = Float[Numbers, "steps batch units"]
