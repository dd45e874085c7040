"""The page: what it holds (state), how it looks (layout), what it does (events) and what it shows in 3-D (scene)."""
