"""Benches: one module for each claim about speed, each printing ratios from one interleaved run."""
