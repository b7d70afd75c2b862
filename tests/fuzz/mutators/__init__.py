"""Good inputs -> nearly good ones, each by its form. Everything is decided by the `Random` that is given."""
