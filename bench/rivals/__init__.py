"""Servers that others would use, each as its own documentation has it, for one sequence-classification checkpoint.

All take from the environment CHECKPOINT (a directory), PORT, and WORKERS: processes that hold the model, one a core
unless told otherwise; torch's threads are shared out among them. They cut texts at 128 tokens and answer requests of
any number of rows: Triton by the Open Inference Protocol, the others POST /predict with `{"inputs": ["a text", ...]}`.
They run in an environment of their own: requirements.txt, which also has the profiler that bench.serving looks into
headrace with.
"""
