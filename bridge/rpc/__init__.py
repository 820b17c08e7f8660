"""The contract on the wire: generated stubs (v1), and errors as google.rpc statuses."""
