"""What readers and what they read are called in front of people."""

PART_NAMES = {
    "left_hand": "left hand",
    "right_hand": "right hand",
    "body": "body",
    "clip": "all parts",
    "class_query": "class query",
}
DIVERGENCES = {"kl": "KL", "symmetric": "symmetric KL", "js": "JS"}
