# SPDX-License-Identifier: Apache-2.0
"""The benchmark: ours and the peers in turn, on the same arrays and weights."""

import tf_lwdgh  # noqa: F401  before TensorFlow, whose kernels it chooses
