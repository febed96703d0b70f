# SPDX-License-Identifier: Apache-2.0
"""SavedModels that learn new tasks; `tf_lwdgh.serving.loaded.load` reads one back."""
