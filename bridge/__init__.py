"""podbridge: Kubernetes pods and Jobs on serverless backends, with or without a cluster."""

__version__ = "0.1.0"
