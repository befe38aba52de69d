"""One SQLite file per node: what was acknowledged is in it."""

from registry.storage.store import NOTHING, Store, open_store
from registry.storage.transaction import Change, Place, StoredKey, StoredState, Transaction

__all__ = ["NOTHING", "Change", "Place", "Store", "StoredKey", "StoredState", "Transaction", "open_store"]
