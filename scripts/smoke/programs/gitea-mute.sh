#!/bin/sh
# A server that never answers.
sleep 600
