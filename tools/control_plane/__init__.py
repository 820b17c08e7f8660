"""A real Kubernetes control plane on this machine: built from Go modules, started, stopped.

`build` makes the programs once and keeps them in the user's cache; `run` starts them and stops them
in order; `handle` is how tests and the bench hold one that runs. Nothing here is part of podbridge.
"""
