"""The past: a conversation, a membership or an inbox as it was at a moment, folded from the log by the aggregates
themselves. Nothing is stored for it. Whoever asks has been authorised.
"""
