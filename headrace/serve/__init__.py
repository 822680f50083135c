"""Answer inputs: a worker process that holds the models, a batcher inside it, and the pool that talks to it.

The worker knows artifacts and task types, nothing of channels, releases or the store; the control plane in `server/`
knows those and nothing of weights.
"""
