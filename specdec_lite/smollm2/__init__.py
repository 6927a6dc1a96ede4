"""What ships for the chat model SmolLM2-135M-Instruct."""
