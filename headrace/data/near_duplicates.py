"""Pairs of nearly equal texts: MinHash, banded, then checked by exact Jaccard similarity.

MinHash after Broder 1997, "On the resemblance and containment of documents"; bands after Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", section 3.4. A shingle is two neighbouring words, case and punctuation aside; a
text of one word is its own shingle, a text without words is compared as it is. Hashes are fixed, so the same texts give
the same pairs everywhere.
"""

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_HASH_BITS = 40  # of a shingle; the 23 bits above hold the number of the text
_MISS_SHARE = 1e-6  # chance that the bands miss a pair exactly at the threshold
_MAX_HASHES = 128
_MAX_ROWS = 12
_WINDOW = 32  # neighbours compared in a band's bucket: all pairs of a small one, a chain through a large one
_MAX_HELD = 1 << 25  # candidate pairs kept before repeated ones are dropped
_BLOCK = 1 << 18  # shingles hashed at once, to stay in the processor's cache


def near_duplicate_pairs(texts: Sequence[str], share: float) -> Ints:
    """Pairs (M, 2) of indices i < j of texts with Jaccard similarity >= `share`.

    Linked together, the pairs give the groups of near duplicates. Not every pair within a group is listed: texts with
    equal shingles are paired with the first of them only.
    """
    if len(texts) < 2:
        return np.empty((0, 2), dtype=np.int64)
    keys, starts = _shingles(texts)
    same, first = _equal_sets(keys, starts)
    candidates = _candidates(keys, starts, first, share)
    near = candidates[_similarity(keys, starts, candidates) >= share]
    pairs = np.concatenate([same, near])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def shingles_of(text: str) -> list[int]:
    """Hashes of a text's shingles, repeated ones too; never empty."""
    words = [zlib.crc32(word.encode(errors="replace")) for word in _WORD.findall(text.casefold())]
    if len(words) > 1:
        return [(a << 32 | b) for a, b in pairwise(words)]
    return words or [zlib.crc32(text.strip().encode(errors="replace")) | 1 << 33]


def _shingles(texts: Sequence[str]) -> tuple[_Hashes, Ints]:
    """All texts' shingles as sorted `text << 40 | hash` without repeats, and where each text starts (N + 1)."""
    lists = [shingles_of(text) for text in texts]
    counts = np.fromiter((len(one) for one in lists), dtype=np.int64, count=len(lists))
    flat = np.fromiter((h for one in lists for h in one), dtype=np.uint64, count=int(counts.sum()))
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), counts)
    hashed = _mix(flat) >> np.uint64(64 - _HASH_BITS)
    keys = np.unique(owner << np.uint64(_HASH_BITS) | hashed)
    edges = np.arange(len(texts) + 1, dtype=np.uint64) << np.uint64(_HASH_BITS)
    return keys, np.searchsorted(keys, edges).astype(np.int64)


def _equal_sets(keys: _Hashes, starts: Ints) -> tuple[Ints, Ints]:
    """Pairs (first, other) of texts with equal shingles, and the indices of the texts that are first."""
    mixed = _mix(_hash_part(keys))
    summed = np.add.reduceat(mixed, starts[:-1])
    crossed = np.bitwise_xor.reduceat(_mix(mixed), starts[:-1])
    both = np.stack([summed, crossed, np.diff(starts).astype(np.uint64)], axis=1)
    _, first, inverse = np.unique(both, axis=0, return_index=True, return_inverse=True)
    leader = first[inverse.reshape(-1)]
    here = np.arange(len(leader))
    others = here[leader != here]
    return np.stack([leader[others], others], axis=1), here[leader == here]


def _bands(share: float) -> tuple[int, int]:
    """(bands, rows in each): the most selective rows that still find a pair at the threshold."""
    for n_rows in range(_MAX_ROWS, 0, -1):
        hit = share**n_rows
        n_bands = 1 if hit >= 1 else int(np.ceil(np.log(_MISS_SHARE) / np.log1p(-hit))) if hit > 0 else _MAX_HASHES
        if n_bands * n_rows <= _MAX_HASHES:
            return n_bands, n_rows
    return _MAX_HASHES, 1


def _candidates(keys: _Hashes, starts: Ints, chosen: Ints, share: float) -> Ints:
    """Pairs (M, 2) of chosen texts that share a band."""
    n_bands, n_rows = _bands(share)
    n = np.int64(len(starts))
    codes: list[Ints] = [np.empty(0, dtype=np.int64)]
    for band in _band_hashes(keys, starts, n_bands, n_rows):
        codes.append(_neighbours(band[chosen], chosen, n))
        if sum(map(len, codes)) > _MAX_HELD:
            codes = [np.unique(np.concatenate(codes))]
    found = np.unique(np.concatenate(codes))
    return np.stack([found // n, found % n], axis=1)


def _neighbours(hashes: _Hashes, texts: Ints, n: np.int64) -> Ints:
    """Pairs of texts of equal hash as low * n + high, up to _WINDOW places apart among the equal ones."""
    order = np.argsort(hashes, kind="stable")
    ranked, placed = hashes[order], texts[order]
    found = [np.empty(0, dtype=np.int64)]
    for step in range(1, _WINDOW + 1):
        close = np.flatnonzero(ranked[step:] == ranked[:-step])
        if not len(close):
            break
        found.append(placed[close] * n + placed[close + step])  # the sort is stable, so low comes first
    return np.concatenate(found)


def _band_hashes(keys: _Hashes, starts: Ints, n_bands: int, n_rows: int) -> NDArray[np.uint64]:
    """MinHash values of every text, the rows of each band mixed into one: (bands, N)."""
    rng = np.random.default_rng(20_240_229)
    factors = rng.integers(1, 1 << 63, size=n_bands * n_rows, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    bands = np.zeros((n_bands, len(starts) - 1), dtype=np.uint64)
    for low, high in _blocks(starts):
        hashes = _mix(_hash_part(keys[starts[low] : starts[high]]))
        places = starts[low:high] - starts[low]
        for number, factor in enumerate(factors):
            least = np.minimum.reduceat(hashes * factor, places)
            row = bands[number // n_rows, low:high]
            row[:] = _mix(row + least)
    return bands


def _blocks(starts: Ints) -> list[tuple[int, int]]:
    """Runs of whole texts with about _BLOCK shingles."""
    n_texts = len(starts) - 1
    cuts = np.searchsorted(starts, np.arange(0, starts[-1], _BLOCK))
    edges = np.unique(np.concatenate([[0], np.minimum(cuts, n_texts), [n_texts]]))
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def _similarity(keys: _Hashes, starts: Ints, pairs: Ints, n_at_once: int = 1 << 17) -> NDArray[np.float64]:
    """Jaccard similarity (M,) of the pairs' shingle sets."""
    parts = [_similarity_part(keys, starts, pairs[i : i + n_at_once]) for i in range(0, len(pairs), n_at_once)]
    return np.concatenate(parts) if parts else np.empty(0)


def _similarity_part(keys: _Hashes, starts: Ints, pairs: Ints) -> NDArray[np.float64]:
    sizes = np.diff(starts)
    small_first = sizes[pairs[:, 0]] <= sizes[pairs[:, 1]]
    a = np.where(small_first, pairs[:, 0], pairs[:, 1])
    b = np.where(small_first, pairs[:, 1], pairs[:, 0])
    counts = sizes[a]
    ends = np.cumsum(counts)
    owner = np.repeat(np.arange(len(a)), counts)
    place = np.arange(ends[-1]) - np.repeat(ends - counts, counts) + np.repeat(starts[a], counts)
    wanted = b[owner].astype(np.uint64) << np.uint64(_HASH_BITS) | _hash_part(keys[place])
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    common = np.bincount(owner, weights=keys[at] == wanted, minlength=len(a))
    return common / (sizes[a] + sizes[b] - common)


def _hash_part(keys: _Hashes) -> _Hashes:
    return keys & np.uint64((1 << _HASH_BITS) - 1)


def _mix(values: _Hashes) -> _Hashes:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    mixed: Any = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: _Hashes = mixed ^ (mixed >> np.uint64(31))
    return result


def linked(n: int, pairs: Ints) -> Ints:
    """The smallest index (N,) of the group that each of `n` things is in, when the pairs are links."""
    parent = list(range(n))
    for a, b in pairs.tolist():
        root_a, root_b = _root(parent, a), _root(parent, b)
        parent[max(root_a, root_b)] = min(root_a, root_b)
    return np.fromiter((_root(parent, i) for i in range(n)), dtype=np.int64, count=n)


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
