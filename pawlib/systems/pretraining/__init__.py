"""The self-supervised systems that Music-PAW is compared with, in the order of Table 1."""

from pawlib.systems.pretraining import byol_a, clmr, cola, multi_format

SYSTEMS = {made.slug: made for made in (clmr.CLMR, cola.COLA, multi_format.MultiFormat, byol_a.BYOLA)}
