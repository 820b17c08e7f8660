"""A cluster made of manifests: runs, and the Job controller that creates their pods."""
