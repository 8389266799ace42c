"""The log's events for people and their tools: chosen, read from all partitions as one, and written readably."""
