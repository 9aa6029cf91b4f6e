"""Learning one person's code from MediaPipe's landmarks and scores; see cag_avatar's
tracking/code_regressor.py for what comes out.

A clip of seconds does not show all that a face can do. So beside the training frames the network
sees made-up faces: the person's head with other codes, its landmarks off by what they are off by in
a training frame. How much these count is chosen by cross-validation within the training frames.
"""
