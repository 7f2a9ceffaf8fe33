"""Settings that make the whole way of `ofa find` small: few networks of few channels, steps and runs."""

from __future__ import annotations

_TIMING = {"rounds": 1, "min_rounds": 1, "runs_per_visit": 1, "warmup_runs": 1}
_BLOCKS = "channels: 8, stride: 2, depths: [1, 2], kernel_sizes: [3, 5], expand_ratios: [2, 3]"
_SPACE = {
    "resolutions": "[16,24]",
    "stem_channels": 8,
    "head_channels": "[16,24]",
    "stages": f"[{{{_BLOCKS}, activation: relu, squeeze_excite: true}}]",
}
SHORT_WAY = (
    *("space=mobilenet_v3_tiny", "recipe=demo", "count=24", "calibration_images=12", "data.workers=0"),
    *(f"+stages.train.space.{name}={value}" for name, value in _SPACE.items()),
    *("+stages.train.data.image_size=24", "+stages.train.training.calibration_images=12"),
    *("+stages.train.training.length=0.1", "+stages.train.training.batch_size=8"),
    *("+stages.fit.predictor.hidden_units=16", "+stages.fit.predictor.max_iterations=3"),
    *("+stages.search.search.generations=3", "max_table_error=1000", "+stages.report.random_networks=1"),
    *(
        f"+stages.{stage}.device.{name}={value}"
        for stage in ("measure", "report")
        for name, value in _TIMING.items()
    ),
)
"""All stages are run, as they are for a larger network."""
