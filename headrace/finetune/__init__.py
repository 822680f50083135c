"""Fine-tune a base model on the rows of a snapshot. Run as a job; resumes where a killed one was.

`base_models` finds the weights, `batching` makes batches of like length, `training` is Trainer with our batches and
progress, `running` goes from a run to a checkpoint, `embeddings` gives the frozen base model's vectors.
"""
