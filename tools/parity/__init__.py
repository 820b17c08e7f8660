"""The same manifests on a real kubelet and on a virtual node, and what differs."""
