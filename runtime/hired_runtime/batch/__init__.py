"""`hired-edge batch`: a file of requests in, a file of answers out, many rows at once."""
