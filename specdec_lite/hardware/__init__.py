"""What the machine can do, measured and from data sheets."""
