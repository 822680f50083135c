"""Servers that others would use, each as its own documentation has it, for one sequence-classification checkpoint.

All take from the environment CHECKPOINT (a directory), PORT, and WORKERS: processes that hold the model, one a core
unless told otherwise; torch's threads are shared out among them. They cut texts at 128 tokens and answer POST /predict
with `{"inputs": ["a text", ...]}` of any number of rows. They run in an environment of their own: requirements.txt.
"""
