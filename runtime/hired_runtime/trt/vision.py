"""The vision engine of TensorRT: pixels go to the device, attention maps come back, features stay."""

from __future__ import annotations

import numpy as np

from hired_runtime.backend import AttentionMaps, Floats, Ints
from hired_runtime.trt.addresses import VisionAddresses, runs
from hired_runtime.trt.cuda import Cuda
from hired_runtime.trt.engine import Context


class TrtVision:
    """The vision engine. Features of every picture of a request are kept until the next one overwrites them.

    Kept rows cross in as few copies as pay (`addresses.runs`), into page-locked memory, and are put together there.
    """

    def __init__(self, cuda: Cuda, context: Context, addresses: VisionAddresses, images: int) -> None:
        self._cuda, self._context, self._addresses = cuda, context, addresses
        self._pixels = cuda.allocate(addresses.pixel_bytes, "pixels")
        self._features = cuda.allocate(addresses.feature_bytes, "features")
        self._maps = cuda.allocate(addresses.map_bytes, "attention maps")
        self._host_pixels = cuda.allocate_host(addresses.pixel_bytes, "pixels")
        self._host_features = cuda.allocate_host(addresses.slot_bytes, "kept features")
        # One block a picture: a request's maps are read when its last picture has been seen.
        self._host_maps = [cuda.allocate_host(addresses.map_bytes, "attention maps") for _ in range(images)]

    def encode(self, pixel_values: Floats, slot: int = 0) -> AttentionMaps:
        cuda, tiles = self._cuda, len(pixel_values)
        pixels, features = self._addresses.pixels(tiles), self._addresses.features(tiles, slot)
        maps, host = self._addresses.maps(tiles), self._host_maps[slot]
        cuda.use()
        pixels.of(self._host_pixels.bytes)[:] = pixel_values
        cuda.to_device(self._pixels, self._host_pixels, pixels.nbytes)
        addresses = {
            "pixel_values": self._pixels.address,
            "image_features": self._features.address + features.offset,
            **{name: self._maps.address + field.offset for name, field in maps.fields.items()},
        }
        self._context.bind((tiles, slot), {"pixel_values": pixels.shape}, addresses)
        self._context.enqueue()
        cuda.to_host(host, self._maps, maps.nbytes)
        cuda.synchronise()
        allocation, selection = (field.of(host.bytes) for field in maps.fields.values())
        return AttentionMaps(allocation, selection)

    def gather(self, rows: Ints, slot: int = 0) -> Floats:
        size, offset = self._addresses.row_bytes, self._addresses.features(1, slot).offset
        self._cuda.use()
        for start, stop in runs(rows, size):
            place = start * size
            self._cuda.to_host(
                self._host_features,
                self._features,
                (stop - start) * size,
                target_offset=place,
                source_offset=offset + place,
            )
        self._cuda.synchronise()
        return self._addresses.rows_of(self._host_features.bytes)[rows].astype(np.float32)
