"""The agent of a machine: services that files define, kept registered and checked.

Files become definitions (`service_files`, `consul_files`, `definitions`), which `agent` keeps registered. A check's
results become its state (`check`, pure); `probes` finds them out, and `check_runner` has that done.
"""
