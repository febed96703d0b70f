# SPDX-License-Identifier: Apache-2.0
"""Many runs made into tables and pictures."""
