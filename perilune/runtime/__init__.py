"""Says what a service runs on: the bus, gRPC, HTTP, authentication, telemetry. It needs the `service` extra."""
