"""What notebooks show: players, figures and explorers. Imported by notebooks alone (see tests/test_arrows.py).
report and readme are commands: one page of everything to send, and the tables of README.

songs       a few songs of a corpus as tensors, and their tags in words
players     hear a clip, or all clips of a level
figures     arrays in, (fig, ax) out, units on the axes, one colour per level throughout the book
scores      what a classifier believes: per label, histograms, confusion
dots        a table of the paper as a picture
effects     seeds and differences as a picture
cover_songs a search and its misses, to see and to hear
hierarchy   the tree of a song in a map, and tags over time
page        the part-whole explorer
report      one page of all tables, figures and the state of every row
readme      README's tables and picture, made of published rows
explorers   a function with sliders: drawn once for whoever only reads, redrawn for whoever moves them
"""
