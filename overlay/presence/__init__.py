"""Who is alive: hosts beat, witnesses say who went down, replicas hide whom they can't reach themselves.

docs/liveness.md tells the rules."""
