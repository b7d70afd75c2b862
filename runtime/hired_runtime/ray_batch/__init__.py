"""`hired-edge batch --ray`: a file of requests answered by many machines of a Ray cluster, into a folder of Parquet."""
