"""What the benchmarks run in processes of their own, and the stream that they run it on."""
