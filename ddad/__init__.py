"""Dynamic addition of noise in a latent diffusion model for anomaly detection (Tebbe
and Tayyub, CVPR 2024 workshops).

    from ddad import Detector, preset
    detector = Detector.fit(images, preset("clean"))  # good, (N, 3, H, W) in [-1, 1]
    found = detector.predict(images)                  # found.score, .map, .T_hat, ..
"""
from importlib import import_module

__all__ = ["Detector", "Prediction", "Settings", "preset", "PRESETS"]
_HOME = {"Detector": "detector", "Prediction": "detector",
         "Settings": "settings", "preset": "settings", "PRESETS": "settings"}


def __getattr__(name: str):
    # torch is imported when it is needed, so that `ddad --help` is quick
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'ddad' has no attribute {name!r}")
