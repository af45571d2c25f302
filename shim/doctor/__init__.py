"""Whether a node can run pods, looked at from the outside in.

Each area is a module that observes, which has effects, and judges what was observed, which has none. Nothing that is
missing raises: it becomes a `Finding`. Nothing is left behind.
"""
