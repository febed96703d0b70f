# SPDX-License-Identifier: Apache-2.0
"""What the doctor looks at, one kind of thing a module: each gives a Report, and changes nothing on disk."""
