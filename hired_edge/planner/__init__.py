"""What a model takes on a device, from its config.json alone: `hired-edge plan`. Nothing here measures anything."""
