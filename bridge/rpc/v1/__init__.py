"""Generated from `proto/bridge/rpc/v1` by `make generate`."""
