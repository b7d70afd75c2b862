"""`hired-edge chat`: a conversation on a terminal. Nothing here knows what an engine is."""
