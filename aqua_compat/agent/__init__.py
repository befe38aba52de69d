"""The agent of a machine: services that files define, and the checks that tell whether they work.

Files become definitions (`service_files`, `consul_files`, `definitions`); a check's results become its state (`check`,
pure), and `probes` finds them out.
"""
