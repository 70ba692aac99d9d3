"""Tests, and the servers and pictures they run on."""
