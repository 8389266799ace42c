"""The servers of `riverrun up`: nats-server, Postgres and Valkey as children from wheels, ClickHouse in process.

Nothing else in Riverrun knows whether a server is embedded: the others are given URLs.
"""
