"""What the tests of this room share; ``pass_parts`` and ``feature_states`` are importable here and in processes that tests start."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
