"""Twins: stand-ins for the datasets, made from real scores, in the layout of the real ones.

    registry    one list of works for all twins: labels, doubles joined by melody, split by work   works-v1.csv
                and its appendix of Essen songs, for the twins that ask for them                   works-v1-essen.csv
    scores      a work of the registry as a table of notes (music21's corpus)
    arrange     excerpts, voices, part events and order schemes: notes to timed notes
    render      timed notes to audio (symusic, TimGM6mb.sf2)
    making      seeded draws, and rendering in parallel, each track within a limit; all makers share it
    mtat        the MTAT twin: `plan(size, seed)` says what each track will be, `make(root, ...)` renders it
    gtzan       the GTZAN twin, likewise: pairs of tunes of ten kinds
    dcase2016   the twin of the acoustic scenes, synthetic: no score, its sounds are painted by `textures`
    covers      the twins of both collections of cover songs: works in several settings           covers-v1.csv
                chosen by covers_table; layouts in covers80 and shs100k
    soundfont   a sound font with its root keys where the synthesiser reads them: in tune
    freeze      cheap baselines, on which a generator is frozen

A twin is a named, versioned benchmark: generator version, seed, frozen works, licence card, baseline scores. Numbers
made on a twin are never shown as numbers of the real dataset.

Told in: notebooks/01_data.ipynb
"""
