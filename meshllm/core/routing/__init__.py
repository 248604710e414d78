"""Where each request goes: which model it means, which hosts have it, which of them is best now. Pure."""
