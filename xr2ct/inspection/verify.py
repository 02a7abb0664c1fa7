"""Every chunk of a store against its checksum."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from xr2ct.store import Store


def verify(store: Store) -> list[str]:
    """Every chunk against its checksum, of excluded cases too: what is wrong, a line a chunk."""
    store = Store.open(store.path, excluded=True)
    chunks = [(case, array) for case in store.cases for array in store.arrays()]
    # Threads, since both reading and hashing leave Python's lock.
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda chunk: store.problem(*chunk), chunks)
        return [
            f"{store.path}: case {case.id}: its chunk of {array} {problem}"
            for (case, array), problem in zip(chunks, found, strict=True)
            if problem
        ]
