"""Take in rows, check them, split them, freeze them.

`sources/` read, `importing` takes rows in whole or not at all, `checking` says what is wrong with one, `quality` with
all, `near_duplicates` finds nearly equal texts, `split` gives each group its side for ever, `snapshot` freezes.
"""
