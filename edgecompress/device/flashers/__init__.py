"""The ways onto a chip, one a file: a debug probe, two boot loaders' tools, a drive."""
