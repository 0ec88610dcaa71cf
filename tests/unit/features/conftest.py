"""What the tests of this room share; the modules beside it are importable here and in processes that tests start."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
