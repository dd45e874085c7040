"""The page: four rooms (state, layout, events, scene) and the doors between them and the browser."""
