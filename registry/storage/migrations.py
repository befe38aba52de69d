"""The schema of a node's database, and how it became that.

The schema only ever changes by a migration appended to MIGRATIONS; `user_version` counts those applied. (The original
dropped its tables at every start: docs/design.md, original's fault 18.)
"""

from __future__ import annotations

from typing import Final

ROW_BYTES: Final = 600
"""What a key, key tombstone, record or tombstone is charged for beyond its CBOR: its ids, indexes and counters."""


def _charging(table: str, account: str, size: str = "length({row}.body)") -> str:
    """Triggers that keep `accounts` as the rows of a table come, change and go. `size`: of what `{row}` holds."""
    give = f"""
        INSERT INTO accounts VALUES (new.{account}, new.weight, {size.format(row="new")} + {ROW_BYTES})
            ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
    """  # noqa: S608 - names of columns
    take = f"""
        UPDATE accounts SET bytes = bytes - ({size.format(row="old")}) - {ROW_BYTES}
            WHERE peer_id = old.{account} AND weight = old.weight;
        DELETE FROM accounts WHERE peer_id = old.{account} AND weight = old.weight AND bytes = 0;
    """  # noqa: S608
    return f"""
    CREATE TRIGGER {table}_charged AFTER INSERT ON {table} BEGIN {give} END;
    CREATE TRIGGER {table}_charged_anew AFTER UPDATE ON {table} BEGIN {take} {give} END;
    CREATE TRIGGER {table}_freed AFTER DELETE ON {table} BEGIN {take} END;
    """


def _totalling_named(table: str, flag: str) -> str:
    """Triggers that keep the bytes of those rows that `flag` marks."""
    total = "UPDATE totals SET amount = amount {sign} (length({row}.body) + {more}) WHERE name = 'named'"
    give, take = (total.format(sign=sign, row=row, more=ROW_BYTES) for sign, row in (("+", "new"), ("-", "old")))
    return f"""
    CREATE TRIGGER {table}_named AFTER INSERT ON {table} WHEN new.{flag} BEGIN {give}; END;
    CREATE TRIGGER {table}_named_before AFTER UPDATE ON {table} WHEN old.{flag} BEGIN {take}; END;
    CREATE TRIGGER {table}_named_after AFTER UPDATE ON {table} WHEN new.{flag} BEGIN {give}; END;
    CREATE TRIGGER {table}_unnamed AFTER DELETE ON {table} WHEN old.{flag} BEGIN {take}; END;
    """


_CHARGING: Final = "".join(
    _charging(*names)
    for names in (("keys", "owner_peer_id"), ("key_tombstones", "owner_peer_id"), ("states", "issued_by"))
)

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE keys (
        key_id TEXT PRIMARY KEY,
        owner_peer_id TEXT NOT NULL,
        timestamp_created INTEGER NOT NULL,
        timestamp_published INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX keys_by_published ON keys (timestamp_published);
    CREATE TABLE states (
        key_id TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        is_tombstone INTEGER NOT NULL,
        timestamp_issued INTEGER NOT NULL,
        timestamp_created INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (key_id, issued_by, peer_id)
    ) WITHOUT ROWID;
    CREATE INDEX states_by_age ON states (is_tombstone, timestamp_created, timestamp_issued);
    CREATE INDEX states_by_host ON states (peer_id, is_tombstone, issued_by);
    CREATE TABLE issued (
        key_id TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        timestamp_issued INTEGER NOT NULL,
        PRIMARY KEY (key_id, peer_id)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE removals (
        key_id TEXT PRIMARY KEY,
        owner_peer_id TEXT NOT NULL,
        timestamp_issued INTEGER NOT NULL,
        body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX removals_by_owner ON removals (owner_peer_id);
    CREATE INDEX removals_by_age ON removals (timestamp_issued);
    CREATE INDEX keys_by_owner ON keys (owner_peer_id);
    CREATE TABLE history (
        number INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        key_id TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        what TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    CREATE INDEX history_by_key ON history (key_id, number);
    """,
    """
    ALTER TABLE removals RENAME TO key_tombstones;
    DROP INDEX removals_by_owner;
    DROP INDEX removals_by_age;
    CREATE INDEX key_tombstones_by_owner ON key_tombstones (owner_peer_id);
    CREATE INDEX key_tombstones_by_age ON key_tombstones (timestamp_issued);
    """,
    """
    CREATE TABLE resources (
        key_id TEXT PRIMARY KEY,
        records INTEGER NOT NULL DEFAULT 0,
        tombstones INTEGER NOT NULL DEFAULT 0,
        digest BLOB NOT NULL DEFAULT x'',
        hosted INTEGER NOT NULL DEFAULT 0,
        issued INTEGER NOT NULL DEFAULT 0,
        ended INTEGER NOT NULL DEFAULT 0,
        owned INTEGER NOT NULL DEFAULT 0,
        removed INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX resources_unsettled ON resources (key_id) WHERE digest = x'';
    CREATE INDEX resources_empty ON resources (key_id) WHERE records = 0 AND tombstones = 0;
    CREATE INDEX resources_by_hosted ON resources (hosted);
    CREATE INDEX resources_by_issued ON resources (issued);
    CREATE INDEX resources_by_ended ON resources (ended);
    CREATE TABLE positions (
        position BLOB NOT NULL,
        key_id TEXT NOT NULL,
        PRIMARY KEY (position, key_id)
    ) WITHOUT ROWID;
    CREATE TABLE issuers (
        key_id TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        records INTEGER NOT NULL,
        PRIMARY KEY (key_id, issued_by)
    ) WITHOUT ROWID;
    CREATE TABLE hosts (
        peer_id TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        records INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (peer_id, issued_by)
    ) WITHOUT ROWID;
    CREATE TABLE owners (
        owner_peer_id TEXT PRIMARY KEY,
        keys INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE totals (
        name TEXT PRIMARY KEY,
        amount INTEGER NOT NULL
    ) WITHOUT ROWID;

    INSERT INTO resources (key_id, records, tombstones)
        SELECT key_id, sum(is_tombstone = 0), sum(is_tombstone = 1) FROM states GROUP BY key_id;
    INSERT OR IGNORE INTO resources (key_id) SELECT key_id FROM keys;
    INSERT OR IGNORE INTO resources (key_id) SELECT key_id FROM key_tombstones;
    INSERT INTO issuers SELECT key_id, issued_by, count(*) FROM states WHERE is_tombstone = 0
        GROUP BY key_id, issued_by;
    INSERT INTO hosts SELECT peer_id, issued_by, count(*), sum(length(body)) FROM states WHERE is_tombstone = 0
        GROUP BY peer_id, issued_by;
    INSERT INTO owners SELECT owner_peer_id, count(*) FROM (
        SELECT owner_peer_id FROM keys UNION ALL SELECT owner_peer_id FROM key_tombstones
    ) GROUP BY owner_peer_id;
    INSERT INTO totals VALUES
        ('keys', (SELECT count(*) FROM keys)),
        ('records', (SELECT count(*) FROM states WHERE is_tombstone = 0)),
        ('tombstones', (SELECT count(*) FROM states WHERE is_tombstone = 1)),
        ('history', (SELECT coalesce(sum(length(key_id) * 2 + length(issued_by) + length(peer_id) + length(what)
            + length(detail) + 40), 0) FROM history));

    CREATE TRIGGER key_added AFTER INSERT ON keys BEGIN
        INSERT INTO resources (key_id) VALUES (new.key_id) ON CONFLICT DO UPDATE SET digest = x'';
        INSERT INTO owners VALUES (new.owner_peer_id, 1) ON CONFLICT DO UPDATE SET keys = keys + 1;
        UPDATE totals SET amount = amount + 1 WHERE name = 'keys';
    END;
    CREATE TRIGGER key_replaced AFTER UPDATE ON keys BEGIN
        UPDATE resources SET digest = x'' WHERE key_id = new.key_id;
    END;
    CREATE TRIGGER key_dropped AFTER DELETE ON keys BEGIN
        UPDATE resources SET digest = x'' WHERE key_id = old.key_id;
        UPDATE owners SET keys = keys - 1 WHERE owner_peer_id = old.owner_peer_id;
        DELETE FROM owners WHERE owner_peer_id = old.owner_peer_id AND keys = 0;
        UPDATE totals SET amount = amount - 1 WHERE name = 'keys';
    END;
    CREATE TRIGGER key_tombstone_added AFTER INSERT ON key_tombstones BEGIN
        INSERT INTO resources (key_id) VALUES (new.key_id) ON CONFLICT DO UPDATE SET digest = x'';
        INSERT INTO owners VALUES (new.owner_peer_id, 1) ON CONFLICT DO UPDATE SET keys = keys + 1;
    END;
    CREATE TRIGGER key_tombstone_replaced AFTER UPDATE ON key_tombstones BEGIN
        UPDATE resources SET digest = x'' WHERE key_id = new.key_id;
    END;
    CREATE TRIGGER key_tombstone_dropped AFTER DELETE ON key_tombstones BEGIN
        UPDATE resources SET digest = x'' WHERE key_id = old.key_id;
        UPDATE owners SET keys = keys - 1 WHERE owner_peer_id = old.owner_peer_id;
        DELETE FROM owners WHERE owner_peer_id = old.owner_peer_id AND keys = 0;
    END;
    CREATE TRIGGER record_added AFTER INSERT ON states WHEN new.is_tombstone = 0 BEGIN
        INSERT INTO resources (key_id, records) VALUES (new.key_id, 1)
            ON CONFLICT DO UPDATE SET records = records + 1, digest = x'';
        INSERT INTO issuers VALUES (new.key_id, new.issued_by, 1) ON CONFLICT DO UPDATE SET records = records + 1;
        INSERT INTO hosts VALUES (new.peer_id, new.issued_by, 1, length(new.body))
            ON CONFLICT DO UPDATE SET records = records + 1, bytes = bytes + excluded.bytes;
        UPDATE totals SET amount = amount + 1 WHERE name = 'records';
    END;
    CREATE TRIGGER record_dropped AFTER DELETE ON states WHEN old.is_tombstone = 0 BEGIN
        UPDATE resources SET records = records - 1, digest = x'' WHERE key_id = old.key_id;
        UPDATE issuers SET records = records - 1 WHERE key_id = old.key_id AND issued_by = old.issued_by;
        DELETE FROM issuers WHERE key_id = old.key_id AND issued_by = old.issued_by AND records = 0;
        UPDATE hosts SET records = records - 1, bytes = bytes - length(old.body)
            WHERE peer_id = old.peer_id AND issued_by = old.issued_by;
        DELETE FROM hosts WHERE peer_id = old.peer_id AND issued_by = old.issued_by AND records = 0;
        UPDATE totals SET amount = amount - 1 WHERE name = 'records';
    END;
    CREATE TRIGGER tombstone_added AFTER INSERT ON states WHEN new.is_tombstone = 1 BEGIN
        INSERT INTO resources (key_id, tombstones) VALUES (new.key_id, 1)
            ON CONFLICT DO UPDATE SET tombstones = tombstones + 1, digest = x'';
        UPDATE totals SET amount = amount + 1 WHERE name = 'tombstones';
    END;
    CREATE TRIGGER tombstone_dropped AFTER DELETE ON states WHEN old.is_tombstone = 1 BEGIN
        UPDATE resources SET tombstones = tombstones - 1, digest = x'' WHERE key_id = old.key_id;
        UPDATE totals SET amount = amount - 1 WHERE name = 'tombstones';
    END;
    CREATE TRIGGER event_added AFTER INSERT ON history BEGIN
        UPDATE totals SET amount = amount + length(new.key_id) * 2 + length(new.issued_by) + length(new.peer_id)
            + length(new.what) + length(new.detail) + 40 WHERE name = 'history';
    END;
    CREATE TRIGGER event_dropped AFTER DELETE ON history BEGIN
        UPDATE totals SET amount = amount - length(old.key_id) * 2 - length(old.issued_by) - length(old.peer_id)
            - length(old.what) - length(old.detail) - 40 WHERE name = 'history';
    END;

    DROP INDEX states_by_age;
    DROP INDEX states_by_host;
    CREATE INDEX states_by_host ON states (peer_id, is_tombstone, key_id, issued_by);
    CREATE INDEX issued_by_age ON issued (timestamp_issued);
    """,
    f"""
    ALTER TABLE states ADD COLUMN victim INTEGER NOT NULL DEFAULT -1;
    ALTER TABLE key_tombstones ADD COLUMN victim INTEGER NOT NULL DEFAULT -1;
    ALTER TABLE key_tombstones ADD COLUMN weight INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE issuers ADD COLUMN tombstones INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE accounts (
        peer_id TEXT NOT NULL,
        weight INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (peer_id, weight)
    ) WITHOUT ROWID;
    DROP TRIGGER key_tombstone_replaced;
    DROP TRIGGER record_added;
    DROP TRIGGER record_dropped;
    DROP TRIGGER tombstone_added;
    DROP TRIGGER tombstone_dropped;

    UPDATE states SET victim = timestamp_issued WHERE is_tombstone = 1;
    UPDATE key_tombstones SET victim = timestamp_issued;
    INSERT INTO issuers (key_id, issued_by, records, tombstones)
        SELECT key_id, issued_by, 0, count(*) FROM states WHERE is_tombstone = 1 GROUP BY key_id, issued_by
        ON CONFLICT DO UPDATE SET tombstones = excluded.tombstones;
    INSERT INTO accounts SELECT peer_id, weight, sum(bytes) FROM (
        SELECT owner_peer_id AS peer_id, weight, length(body) + {ROW_BYTES} AS bytes FROM keys
        UNION ALL SELECT owner_peer_id, weight, length(body) + {ROW_BYTES} FROM key_tombstones
        UNION ALL SELECT issued_by, weight, length(body) + {ROW_BYTES} FROM states
    ) GROUP BY peer_id, weight;

    CREATE TRIGGER key_tombstone_replaced AFTER UPDATE ON key_tombstones BEGIN
        UPDATE resources SET digest = x'' WHERE key_id = new.key_id;
    END;
    CREATE TRIGGER record_added AFTER INSERT ON states WHEN new.is_tombstone = 0 BEGIN
        INSERT INTO resources (key_id, records) VALUES (new.key_id, 1)
            ON CONFLICT DO UPDATE SET records = records + 1, digest = x'';
        INSERT INTO issuers (key_id, issued_by, records) VALUES (new.key_id, new.issued_by, 1)
            ON CONFLICT DO UPDATE SET records = records + 1;
        INSERT INTO hosts VALUES (new.peer_id, new.issued_by, 1, length(new.body))
            ON CONFLICT DO UPDATE SET records = records + 1, bytes = bytes + excluded.bytes;
        UPDATE totals SET amount = amount + 1 WHERE name = 'records';
    END;
    CREATE TRIGGER record_dropped AFTER DELETE ON states WHEN old.is_tombstone = 0 BEGIN
        UPDATE resources SET records = records - 1, digest = x'' WHERE key_id = old.key_id;
        UPDATE issuers SET records = records - 1 WHERE key_id = old.key_id AND issued_by = old.issued_by;
        DELETE FROM issuers
            WHERE key_id = old.key_id AND issued_by = old.issued_by AND records = 0 AND tombstones = 0;
        UPDATE hosts SET records = records - 1, bytes = bytes - length(old.body)
            WHERE peer_id = old.peer_id AND issued_by = old.issued_by;
        DELETE FROM hosts WHERE peer_id = old.peer_id AND issued_by = old.issued_by AND records = 0;
        UPDATE totals SET amount = amount - 1 WHERE name = 'records';
    END;
    CREATE TRIGGER tombstone_added AFTER INSERT ON states WHEN new.is_tombstone = 1 BEGIN
        INSERT INTO resources (key_id, tombstones) VALUES (new.key_id, 1)
            ON CONFLICT DO UPDATE SET tombstones = tombstones + 1, digest = x'';
        INSERT INTO issuers (key_id, issued_by, records, tombstones) VALUES (new.key_id, new.issued_by, 0, 1)
            ON CONFLICT DO UPDATE SET tombstones = tombstones + 1;
        UPDATE totals SET amount = amount + 1 WHERE name = 'tombstones';
    END;
    CREATE TRIGGER tombstone_dropped AFTER DELETE ON states WHEN old.is_tombstone = 1 BEGIN
        UPDATE resources SET tombstones = tombstones - 1, digest = x'' WHERE key_id = old.key_id;
        UPDATE issuers SET tombstones = tombstones - 1 WHERE key_id = old.key_id AND issued_by = old.issued_by;
        DELETE FROM issuers
            WHERE key_id = old.key_id AND issued_by = old.issued_by AND records = 0 AND tombstones = 0;
        UPDATE totals SET amount = amount - 1 WHERE name = 'tombstones';
    END;
    {_CHARGING}
    CREATE INDEX accounts_by_bytes ON accounts (weight, bytes);
    CREATE INDEX states_that_may_go ON states (issued_by, timestamp_issued) WHERE victim = -1;
    CREATE INDEX tombstones_by_victim ON states (victim) WHERE is_tombstone = 1;
    CREATE INDEX key_tombstones_by_victim ON key_tombstones (victim);
    DROP INDEX keys_by_owner;
    CREATE INDEX keys_by_owner ON keys (owner_peer_id, timestamp_created);
    """,  # noqa: S608 - our own names
    """
    ALTER TABLE keys ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE key_tombstones ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE states ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
    UPDATE keys SET checksum = crc32(body);
    UPDATE key_tombstones SET checksum = crc32(body);
    UPDATE states SET checksum = crc32(body);
    """,
    """
    ALTER TABLE issued ADD COLUMN forsaken INTEGER NOT NULL DEFAULT -1;
    """,
    f"""
    ALTER TABLE key_tombstones ADD COLUMN latest BLOB NOT NULL DEFAULT x'';
    ALTER TABLE key_tombstones ADD COLUMN latest_checksum INTEGER NOT NULL DEFAULT 0;
    DROP TRIGGER key_tombstones_charged;
    DROP TRIGGER key_tombstones_charged_anew;
    DROP TRIGGER key_tombstones_freed;
    {_charging("key_tombstones", "owner_peer_id", "length({row}.body) + length({row}.latest)")}
    ALTER TABLE resources ADD COLUMN certified INTEGER NOT NULL DEFAULT {2**63 - 1};
    ALTER TABLE keys ADD COLUMN has_policy INTEGER NOT NULL DEFAULT 0;
    UPDATE keys SET has_policy = 1 WHERE instr(body, CAST('policy/' AS BLOB));
    UPDATE resources SET digest = x'' WHERE key_id IN (SELECT key_id FROM keys WHERE has_policy);
    """,  # noqa: S608 - our own names and numbers
    f"""
    CREATE TABLE siblings (
        key_id TEXT PRIMARY KEY,
        owner_peer_id TEXT NOT NULL,
        weight INTEGER NOT NULL,
        body BLOB NOT NULL,
        checksum INTEGER NOT NULL
    ) WITHOUT ROWID;
    {_charging("siblings", "owner_peer_id")}
    CREATE TRIGGER siblings_dropped_with_key AFTER DELETE ON keys BEGIN
        DELETE FROM siblings WHERE key_id = old.key_id;
    END;
    """,  # noqa: S608 - our own names
    """
    CREATE TABLE trust_statements (
        issued_by TEXT NOT NULL,
        issued_for TEXT NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (issued_by, issued_for)
    ) WITHOUT ROWID;
    CREATE TABLE trust_roots (
        peer_id TEXT PRIMARY KEY,
        steps INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE health_ttls (
        key_id TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        instance TEXT NOT NULL,
        ttl REAL NOT NULL,
        PRIMARY KEY (key_id, issued_by, instance)
    ) WITHOUT ROWID;
    """,
    f"""
    CREATE TABLE listed (
        owner_peer_id TEXT NOT NULL,
        label TEXT NOT NULL,
        key_id TEXT NOT NULL,
        position BLOB NOT NULL,
        created INTEGER NOT NULL,
        removed INTEGER NOT NULL,
        newest INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        digest BLOB NOT NULL,
        body BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        PRIMARY KEY (owner_peer_id, label)
    ) WITHOUT ROWID;
    CREATE INDEX listed_by_position ON listed (position, key_id);
    CREATE INDEX listed_by_newest ON listed (owner_peer_id, newest);
    CREATE INDEX listed_by_created ON listed (created);
    CREATE INDEX listed_by_removed ON listed (removed);
    CREATE TABLE listed_owners (
        owner_peer_id TEXT PRIMARY KEY,
        entries INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TRIGGER listed_added AFTER INSERT ON listed BEGIN
        INSERT INTO listed_owners VALUES (new.owner_peer_id, 1) ON CONFLICT DO UPDATE SET entries = entries + 1;
    END;
    CREATE TRIGGER listed_dropped AFTER DELETE ON listed BEGIN
        UPDATE listed_owners SET entries = entries - 1 WHERE owner_peer_id = old.owner_peer_id;
        DELETE FROM listed_owners WHERE owner_peer_id = old.owner_peer_id AND entries = 0;
    END;
    {_charging("listed", "owner_peer_id")}
    """,  # noqa: S608 - our own names
    f"""
    ALTER TABLE states ADD COLUMN is_named INTEGER NOT NULL DEFAULT 0;
    INSERT INTO totals VALUES
        ('named', (SELECT coalesce(sum(length(body) + {ROW_BYTES}), 0) FROM keys WHERE has_policy)),
        ('charged', (SELECT coalesce(sum(bytes), 0) FROM accounts));
    CREATE TRIGGER accounts_opened AFTER INSERT ON accounts BEGIN
        UPDATE totals SET amount = amount + new.bytes WHERE name = 'charged';
    END;
    CREATE TRIGGER accounts_changed AFTER UPDATE OF bytes ON accounts BEGIN
        UPDATE totals SET amount = amount + new.bytes - old.bytes WHERE name = 'charged';
    END;
    CREATE TRIGGER accounts_closed AFTER DELETE ON accounts BEGIN
        UPDATE totals SET amount = amount - old.bytes WHERE name = 'charged';
    END;
    {_totalling_named("states", "is_named")}
    {_totalling_named("keys", "has_policy")}
    """,  # noqa: S608 - our own names and numbers
    f"""
    ALTER TABLE listed ADD COLUMN victim INTEGER NOT NULL DEFAULT -1;
    UPDATE listed SET victim = newest WHERE created = {2**63 - 1};
    """,  # noqa: S608 - a number
    """
    CREATE TABLE issued_anew (
        issued_by TEXT NOT NULL,
        key_id TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        timestamp_issued INTEGER NOT NULL,
        forsaken INTEGER NOT NULL DEFAULT -1,
        PRIMARY KEY (issued_by, key_id, peer_id)
    ) WITHOUT ROWID;
    INSERT INTO issued_anew SELECT '', key_id, peer_id, timestamp_issued, forsaken FROM issued;
    DROP TABLE issued;
    ALTER TABLE issued_anew RENAME TO issued;
    """,
)
"""`states` holds one row per slot; `body` is the deterministic CBOR of the value, stored exactly (docs/design.md,
original's fault 16).
`trust_statements`, `trust_roots`: the trust graph (`registry.trust`), and its roots that weren't configured.
`issued`: the last timestamp_issued that an identity of this process gave to a slot, so that it never gives one twice;
`issued_by` is empty for the process's own (`registry.storage.issued_slots`).
`listed`: entries of owners' indexes, by owner and label (`registry.model.owner_index`); `body` is a CBOR array of key
and key tombstones, `created` when the key, `removed` when the oldest tombstone, and `newest` when any of them was
signed (seconds), `position` that of the index. `listed_owners`: how many an owner has.
`health_ttls`: the times to live of services that this node hosts, in seconds (`registry.health`).
`siblings` holds other keys of the revision of the one that wins, up to four, and five of the one before, in a CBOR
array (`registry.model.merge.kept_keys`).
`key_tombstones` holds the tombstones of keys: the one that ends most keys, and as `latest` another that ends more
states, if there is one (`timestamp_issued` is the former's, which is the older); `history` the last events
(`registry.model.history`).

What can be computed from these is kept beside them by triggers, so that nothing is ever counted through:
`resources`: per key id how many records and tombstones there are, the digest of everything, and the oldest signature of
each kind (as `registry.model.expiry_horizon`). A change empties the digest; `registry.storage.digests` computes it
before the transaction ends; so it does the first end of a certificate that a record is under, 0 where a policy
withholds one. `positions`: where a resource is in the keyspace, 32 bytes.
`issuers`: records and tombstones per key and issuer; `hosts`: records, and their bytes, per host and issuer; `owners`:
keys and key tombstones; `accounts`: bytes that a peer is charged for as owner and issuer, by the weight that it had;
`totals`: keys, records, tombstones, about how many bytes the history has, how many all are `charged` for, and of these
those to which half of the disk is reserved (`registry.replica.disk`), `named`: keys with a policy, and states that are
`is_named`.
`victim`: the latest timestamp_issued (of a key: timestamp_created) of what the states of a slot, or a key's tombstones,
also in an index, ended here; -1 for nothing. Of tombstones that older versions stored it isn't known, and taken to be
their own.
A state is replaced by deleting and inserting it, since these two fire the triggers.
`checksum` is the CRC of `body`: a row whose body isn't what was stored there is noticed when it is read
(`registry.storage.checked_rows`).
"""
