"""A checkpoint: a directory that plain transformers, peft or sentence-transformers loads, and what is made of it.

`network` is the model as one function from token ids to logits, `loading` and `saving` go between it and a directory,
`encoding` turns inputs into token ids and `windows` turns logits of long inputs back into one answer each; these two
need no torch, because serving reads with them too.
"""
