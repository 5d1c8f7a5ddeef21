"""Even light: shading within a tile, gains between tiles."""
