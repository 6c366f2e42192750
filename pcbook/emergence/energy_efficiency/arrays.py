"""The types of the chapter's arrays."""

from typing import Annotated

import numpy as np
from jaxtyping import Array, Float

from pcbook.core.arguments import Allowed

Numbers = Array | np.ndarray
Weights = Float[Numbers, "units units"]
Steps = Annotated[
    Float[Numbers, "steps batch units"], Allowed("at least one step", lambda x: len(x) > 0)
]
