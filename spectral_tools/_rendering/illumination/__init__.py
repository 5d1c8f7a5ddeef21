"""Even light: shading within a tile, gains between tiles.

gains : make neighbouring tiles equally bright where they overlap
shading : find the uneven light of a camera from its own tiles, and take it off
"""
