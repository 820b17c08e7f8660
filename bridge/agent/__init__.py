"""The one pod loop: Kubernetes' side of the contract, for a cluster and for a run alike."""
