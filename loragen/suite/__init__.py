"""Task suite: self-written system prompts with questions whose answers only the prompt decides."""
