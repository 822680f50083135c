"""What people look at: one self-contained HTML report of a workspace.

`facts` gathers, `figures` draws, `markup` escapes, `sections` says what a figure shows, `report` writes the file.
"""
