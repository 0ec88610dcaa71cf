"""What the tests of this room share; ``feature_states`` builds states by plain definition."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
