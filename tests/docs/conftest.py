"""Makes the scripts and the benches importable, from wherever pytest is started."""

import sys

from docs.pages import ROOT

sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]
