"""Cores without packed arithmetic: the kernels' own TIR, reading encoded weights."""
