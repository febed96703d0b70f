# SPDX-License-Identifier: Apache-2.0
"""The converters' command lines: flags and help, no logic."""
