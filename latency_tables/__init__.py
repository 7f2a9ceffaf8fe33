"""Latency tables: devices, engines, measuring, and tables as estimators."""
