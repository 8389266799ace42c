"""Hot, warm, cold: reading through the tiers as one, and moving what is old from one to the next."""
