"""Where rows came from and what used them; rows taken out for good, through to the versions made of them.

trace:    a row -> its prediction, feedback, labeller, channel, import -> snapshots, runs, versions, adapters, releases
erase:    intent (a tombstone) -> files -> the store -> free pages -> a signed receipt
rebuild:  what is in charge and used what was erased, made again without it
"""
