"""The master's gRPC services: one file each, thin over the registry and the store."""
