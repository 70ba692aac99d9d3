"""Captioners: run time, network, decoding, preprocessing, training and evaluation."""
