"""What the appliance costs and what it holds to, measured: see docs/benchmarks.md."""
