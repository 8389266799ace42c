"""The soak: clients on a deployment whose gateways are killed and whose Valkey is flushed, held against the log."""
