"""One SQLite file per node: what was acknowledged is in it."""

from registry.storage.change import Change
from registry.storage.checked_rows import Place, StoredKey, StoredState
from registry.storage.store import NOTHING, Store, open_store
from registry.storage.transaction import Transaction

__all__ = ["NOTHING", "Change", "Place", "Store", "StoredKey", "StoredState", "Transaction", "open_store"]
