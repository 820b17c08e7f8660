"""The kubelet shim: a virtual node of a cluster, whose pods run at a provider."""
