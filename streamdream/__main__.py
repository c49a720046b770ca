"""``python -m streamdream``"""
from streamdream.cli import main

main()
