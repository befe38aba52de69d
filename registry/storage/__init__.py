"""One SQLite file per node: what was acknowledged is in it."""

from registry.storage.store import Store, open_store
from registry.storage.transaction import Change, StoredKey, StoredState, Transaction

__all__ = ["Change", "Store", "StoredKey", "StoredState", "Transaction", "open_store"]
