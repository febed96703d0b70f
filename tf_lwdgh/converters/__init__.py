"""Converters: from data sets as users have them on disk to records, all through store.write_dataset."""
