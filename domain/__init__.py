"""What is true: ids, aggregates, events, policies.

Pure: no I/O, no clock, no asyncio. Time, ids and randomness are passed in.
Everything above this package may import it; it imports nothing of Riverrun.
"""
