"""Vision towers as fake-tensor modules, a file each; what they share is `hired_export.vision`."""
