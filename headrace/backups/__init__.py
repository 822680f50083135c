"""Copies of a workspace that can take its place: made while a server writes, checked before they replace anything.

    backup    database at one moment + artifacts + old predictions + settings -> a folder, its manifest written last
    follow    the same, then every change within a second, until it is stopped (generations.py: what lies where)
    restore   every byte checked -> a new folder -> newer erasures applied -> renamed into place, the old one put aside

Caches, logs and the key that signs receipts are in neither. Not for PostgreSQL, which has its own means.
"""

from headrace.backups.copying import MANIFEST, Backup, backup, last
from headrace.backups.following import Followed, follow
from headrace.backups.restoring import Restored, anchor_of, newest_at, restore, verify

__all__ = [
    "MANIFEST",
    "Backup",
    "Followed",
    "Restored",
    "anchor_of",
    "backup",
    "follow",
    "last",
    "newest_at",
    "restore",
    "verify",
]
