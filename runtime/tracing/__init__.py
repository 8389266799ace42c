"""What became of one message, put together from the log, the read models, the hot store and the gateways: read only."""
