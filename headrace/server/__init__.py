"""The HTTP surface: the control plane that parses requests, asks the pool, logs through one queue and renders answers.

The only asynchronous part of headrace. Routes hold no logic; `plane` owns what a server runs on.
"""
