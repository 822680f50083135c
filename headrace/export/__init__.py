"""Write a checkpoint as files that serve, and load them back as a Predictor.

`load` is what the serving worker calls: it reads headrace.json of an artifact folder and asks the backend named there.
"""

from headrace.export.artifact import ArtifactFacts, load, read_facts, write_facts
from headrace.export.backends import BACKENDS

__all__ = ["BACKENDS", "ArtifactFacts", "load", "read_facts", "write_facts"]
