"""The committed bundles (`bundle`: float32, `bundle-int4`) and the script that makes them."""
