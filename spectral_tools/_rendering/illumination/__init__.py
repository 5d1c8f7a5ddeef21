"""Even light: shading within a tile, gains between tiles.

gains : brightness of tiles from their overlaps, robust (public)
shading : flat and dark field of a camera from its own tiles (public)
"""
