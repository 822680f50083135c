"""Measure predictors on held-out rows, per class and per channel, with intervals. Sees logits only, never a model.

`evaluating` for one predictor, `comparison` for two on the same rows, `agreement` for two that should be equal,
`baselines` to stand beside, `gates` that a version must pass before traffic, `model_card` to read.
"""
