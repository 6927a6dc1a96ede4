"""Measuring: timers, the roofline, and the commands bench, demo, doctor, roofline and targets."""
