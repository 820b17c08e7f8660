"""What the simulated clouds share: time, chance, the ledger's counts, the control API, the server,
and running containers for real. It knows none of the clouds."""
