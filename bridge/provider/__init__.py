"""The provider: it translates pods, places them, keeps track of them, and restarts containers."""
