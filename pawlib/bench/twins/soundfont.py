"""A sound font that plays in tune: root keys moved to where the synthesiser looks for them.

A SoundFont says at which key a sample sounds as it was recorded in one of two places: in the sample's header
(originalPitch), or in the zone of an instrument that plays it (generator 58, overridingRootKey), which goes before.
symusic's synthesiser reads the first alone. In TimGM6mb.sf2 the piano, the violin, the guitars and many more have the
second: their notes sound up to 24 semitones too high, some keys more than others, so that no melody is left.

`in_tune(path)` writes the same font once more: for every root key that a zone sets, the sample's header is there again
with this pitch, and the zone plays that one. No audio is changed or copied: it is 46 bytes for each.

Source: SoundFont Technical Specification 2.04 (1998), Secs. 7.7-7.10 and 8.1.2.
Told in: notebooks/40_cover_songs.ipynb
"""

import struct

from pawlib.bench.files import atomic

INSTRUMENT, BAG, GENERATOR, SAMPLE = "<20sH", "<HH", "<HH", "<20sIIIIIBbHH"  # one entry of inst, ibag, igen, shdr
SAMPLE_ID, ROOT_KEY = 53, 58  # generators
PITCH = 6  # of a sample's fields
UNSET = 0xFFFF  # a zone may say that it sets no root key: -1


def in_tune(path, out):
    """Write a font with every root key in the headers of its samples.

    Parameters
    ----------
    path : path-like
        A SoundFont 2.
    out : path-like
        Written atomically.

    Returns
    -------
    int
        How many zones set a root key that was not their sample's.

    Raises
    ------
    ValueError
        If the file is no SoundFont 2, or a part of it is missing.
    """
    with open(path, "rb") as file:
        font = file.read()
    if font[:4] != b"RIFF" or font[8:12] != b"sfbk":
        raise ValueError(f"{path} is no SoundFont 2 (it begins with {font[:12]!r}): is it packed, or another format?")
    places = _chunks(path, font)
    samples = _entries(font, places["shdr"], SAMPLE)
    generators = _entries(font, places["igen"], GENERATOR)
    end, samples = samples[-1], samples[:-1]  # the last entry says that there are no more
    again, n_moved = {}, 0
    for at, root in _root_keys(font, places, generators):
        number = generators[at][1]
        if root == samples[number][PITCH]:
            continue
        n_moved += 1
        if (number, root) not in again:
            again[number, root] = len(samples)
            samples.append((*samples[number][:PITCH], root, *samples[number][PITCH + 1 :]))
        generators[at] = (SAMPLE_ID, again[number, root])
    made = bytearray(font)
    begin, size = places["igen"]
    made[begin : begin + size] = b"".join(struct.pack(GENERATOR, *one) for one in generators)
    begin, size = places["shdr"]
    headers = b"".join(struct.pack(SAMPLE, *one) for one in [*samples, end])
    made[begin : begin + size] = headers
    struct.pack_into("<I", made, begin - 4, len(headers))
    for at in (4, places["pdta"][0] - 4):  # the file and the list that hold the headers have grown
        struct.pack_into("<I", made, at, struct.unpack_from("<I", made, at)[0] + len(headers) - size)
    with atomic(out) as temporary:
        temporary.write_bytes(made)
    return n_moved


def _chunks(path, font):
    """First byte and size of the content of the parts that are needed: dict of name to (int, int)."""
    found = {}
    at = 12
    while at + 8 <= len(font):
        name, size = font[at : at + 4], struct.unpack_from("<I", font, at + 4)[0]
        if name == b"LIST" and font[at + 8 : at + 12] == b"pdta":
            found["pdta"] = (at + 8, size)
            at += 12  # into the list
            continue
        found[name.decode("latin-1")] = (at + 8, size)
        at += 8 + size + size % 2
    absent = [name for name in ("pdta", "inst", "ibag", "igen", "shdr") if name not in found]
    if absent or found["shdr"][0] < found["pdta"][0] or sum(found["shdr"]) > len(font):
        raise ValueError(f"{path} lacks {', '.join(absent) or 'its end'}: was the file cut off?")
    return found


def _entries(font, place, form):
    begin, size = place
    return list(struct.iter_unpack(form, font[begin : begin + size]))


def _root_keys(font, places, generators):
    """(place of the generator that names the sample, root key) of every zone that has one, or whose instrument has."""
    bags = [first for first, _ in _entries(font, places["ibag"], BAG)]
    firsts = [first for _, first in _entries(font, places["inst"], INSTRUMENT)]
    for first, last in zip(firsts[:-1], firsts[1:], strict=True):
        of_all = UNSET
        for bag in range(first, last):
            zone = {generators[at][0]: at for at in range(bags[bag], bags[bag + 1])}
            root = generators[zone[ROOT_KEY]][1] if ROOT_KEY in zone else of_all
            if SAMPLE_ID not in zone:  # a zone for all zones of the instrument
                of_all = root
            elif root <= 127:
                yield zone[SAMPLE_ID], root
