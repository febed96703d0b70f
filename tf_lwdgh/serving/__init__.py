"""SavedModels that learn new tasks."""
