"""The science: clips, their preparation, SiFormer and CMCL. No console; no files but clips.

One legend for every shape in this package, always batch first:

**B** clips in a batch, **T** frames, **V** keypoints, **C** coordinates, **P** streams,
**D** embed_dim, **H** heads, **K** classes.
"""
