# SPDX-License-Identifier: Apache-2.0
"""A server of exported models over HTTP: TensorFlow Serving's REST contract, kept classifiers, and a page."""
