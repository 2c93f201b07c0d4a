"""`slrctl ablate`: variants against a baseline, over paired seeds.

A study is a list of variants; a trial is one training of one variant under one seed. Trials are
ordinary runs, found again by the content of what they compute.
"""
