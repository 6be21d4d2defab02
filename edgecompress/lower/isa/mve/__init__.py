"""Microkernels in MVE (Helium) integer vector instructions, as on the Cortex-M55."""
