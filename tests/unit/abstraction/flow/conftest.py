"""``planted_flow`` is importable in these tests; token sets and random SAEs are those of other rooms' tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
for room in ("activations", "features"):
    sys.path.append(str(Path(__file__).parents[2] / room))
