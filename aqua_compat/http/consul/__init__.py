"""Consul's HTTP API, as far as its clients use it to find services: see docs/consul.md.

`query` reads what a request asks, `expression` its filter; `entries` writes what is known as Consul does. `followed`
keeps one service up to date, `catalog` all whose names are known (`known_names`), `index_book` counts changes.
`consul_api` answers, `agent_api` for the services of this machine.
"""
