"""The DNS server of a node: names such as `web.acme.aqua` and `_web._tcp.acme.aqua`, by UDP and TCP (docs/dns.md)."""
