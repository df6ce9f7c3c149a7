"""GPUs of stages' actors: which one each has, and values between them."""
