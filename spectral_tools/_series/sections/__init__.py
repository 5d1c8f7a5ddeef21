"""Serial sections at any angle, and their bending.

align_stack : the pose of each section, by links between near ones
relax_meshes : bend all sections until their points meet
section_matching : the pose of one section in another, and points of both
"""
