"""Who may ask a server, and for what.

scopes     what a key can allow, and which route needs which
keys       make, list, rotate and revoke keys
keyring    keys as a server holds them in its memory
"""
