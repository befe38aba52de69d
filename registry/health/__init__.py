"""Which services pass: what a host says of the records that it hosts, and what readers make of it.

`state` has the values, `exceptions` how they travel, `hosted` what a host decides, `health_reader` what a reader
decides: all pure. `report` is what an issuer signs for a host elsewhere. `host_health` and `health_of_hosts` act for
them.
"""
