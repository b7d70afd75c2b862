"""The device's sub-commands of `hired-edge`, a module each."""
