"""The ways of calling that benchmarks/calls.py compares: one module each, with its server as a process of its own."""
