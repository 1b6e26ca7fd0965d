"""Raw dump -> documents -> token shards.

A reader (`sources/`) turns files into documents, `clean/` makes their text plain, `filter` and `dedup` drop what should
not be learned (each drop with a reason, counted by `report`), and `shards` writes what is left as tokens. Every step is
a generator over documents and knows nothing of who runs it; `prepare` runs them all in local processes.
"""
