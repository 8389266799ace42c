"""Evidence of tampering: log, archive and warm tier still have what was once stored, or where one of them does not.

`chain_walk` goes along the hash chain, event by event, through archive and log; `sketches` compare the rows that are
made of events; `typed_rows` and `warm_rows` know where these lie, `closely` names those that differ, and `proof` is
all of it.
"""
