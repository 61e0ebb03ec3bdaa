"""Joins the Wi-Fi; MicroPython runs it before main.py.

If the network is not there in time, main.py starts all the same: the client keeps trying.
"""

import time

import network

NAME = "your network"
PASSWORD = "its password"  # noqa: S105 - written on your board, not here
SECONDS = 20

station = network.WLAN(network.STA_IF)
station.active(True)
if not station.isconnected():
    station.connect(NAME, PASSWORD)
    start = time.ticks_ms()
    while not station.isconnected() and time.ticks_diff(time.ticks_ms(), start) < 1000 * SECONDS:
        time.sleep_ms(100)
if station.isconnected():
    print("boot: on the network as", station.ifconfig()[0])
else:
    print("boot: not on network %s after %d s" % (NAME, SECONDS))
