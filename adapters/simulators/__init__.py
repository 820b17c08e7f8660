"""Clouds as real servers on this machine: they speak a cloud's own wire protocol, keep its limits,
and really run what they are asked to run. Written from the clouds' documentation."""
