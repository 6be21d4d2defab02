"""Wider tiles for cores with 31 registers and no instructions of their own for int8."""
