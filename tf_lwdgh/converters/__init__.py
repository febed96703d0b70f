# SPDX-License-Identifier: Apache-2.0
"""Converters: from data sets as users have them to records, through store.write_dataset."""
