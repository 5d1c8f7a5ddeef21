"""ITK's transforms, and text files word by word.

itk_text : ITK's transforms as text, and whether they are whole
itk_transforms : ITK's transforms as matrices, control points and polynomials
text_words : read text files word by word, and say where they are wrong
"""
