# SPDX-License-Identifier: Apache-2.0
"""The peers, one file each, run in an environment of their own."""
