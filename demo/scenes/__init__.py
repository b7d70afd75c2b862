"""Pictures that the project draws itself, with questions about them: `python -m demo.scenes --help`."""
