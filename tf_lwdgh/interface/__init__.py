# SPDX-License-Identifier: Apache-2.0
"""What `import tf_lwdgh` offers to Python; importing it starts TensorFlow, without a word."""

import sys

from tf_lwdgh import command_line

if "tensorflow" not in sys.modules:
    with command_line.chatter_dropped():
        import tensorflow as tf

        tf.config.list_physical_devices()
