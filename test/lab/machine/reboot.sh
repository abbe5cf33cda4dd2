#!/bin/sh
# Asks whoever holds the power switch; the machine dies before this ends.
: > /var/lib/lab-log/reboot-asked
sleep 1000
