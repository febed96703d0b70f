# SPDX-License-Identifier: Apache-2.0
"""Operations with hand-derived derivatives, one block a file."""
