"""What notebooks show: players, figures and explorers. Imported by notebooks alone (see tests/test_arrows.py).

songs       a few songs of a corpus as tensors, and their tags in words
players     hear a clip, or all clips of a level
figures     arrays in, (fig, ax) out, units on the axes, one colour per level throughout the book
scores      what a classifier believes: per label, histograms, confusion
dots        a table of the paper as a picture
hierarchy   the tree of a song in a map, and tags over time
page        the part-whole explorer
explorers   a function with sliders: drawn once for whoever only reads, redrawn for whoever moves them
"""
