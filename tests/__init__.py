# SPDX-License-Identifier: Apache-2.0
"""The tests; their folders mirror the package's rooms."""

import tf_lwdgh  # noqa: F401  before TensorFlow, whose kernels it chooses
