"""Random images of ImageNet's shape, to try a recipe without the data: times are real, accuracy is chance."""

import numpy as np


def images() -> dict[str, np.ndarray]:
    """Return 32 images to train (and calibrate) on and 16 to test on, of 1,000 classes."""
    rng = np.random.default_rng(0)

    def some(count: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.standard_normal((count, 3, 224, 224), np.float32), rng.integers(0, 1000, count)

    (x_train, y_train), (x_test, y_test) = some(32), some(16)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, "classes": np.array(1000)}
