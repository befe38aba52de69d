"""Hostile bytes for everything that reads what others wrote: `python -m tests.attacks.fuzz --count 1000000`.

`grammar` writes CBOR of hostile shapes, `mutation` alters messages as honest peers send them, in CBOR, MessagePack,
JSON and protobuf, `parsers` and `answers` are the table of what reads them, `node` is a whole node that is called, and
`driver` gives each of them its inputs and measures how long it takes. The same seed makes the same inputs.
"""
