"""The command line: each verb parses, calls one stage function and renders. No logic here.

Verbs live in one file per group; they import what they call when they are called, so that `--help` stays fast.
"""
