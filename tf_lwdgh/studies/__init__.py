"""Many runs made into tables and pictures."""
